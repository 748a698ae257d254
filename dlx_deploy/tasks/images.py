"""Images as what networks read: whatever they answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlx_deploy.config import Data, Export, Training
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.nn.data.frames import FRAME_KEYS, check_scale, framing_of
from dlx_deploy.nn.training.views import Views
from dlx_deploy.runtime.tasks.framing import resize_word
from dlx_deploy.targets import Profile

if TYPE_CHECKING:
    from torch import nn

    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.data.headers import ImageHeader
    from dlx_deploy.nn.export.spec import Spec
    from dlx_deploy.nn.models.families import Reads
    from dlx_deploy.nn.models.inputs import ImageInput, InputSpec
    from dlx_deploy.nn.models.outputs import Outputs
    from dlx_deploy.nn.pruning.channels import PruneReport
    from dlx_deploy.nn.pruning.order import Order
    from dlx_deploy.nn.training.batches import Feed
    from dlx_deploy.runtime.tasks.framing import Framing
    from dlx_deploy.runtime.tasks.task import Inputs as DeviceInputs
    from dlx_deploy.tasks.readings import Reading

__all__ = ["Images", "image_header"]

_SMALL_PX = 16 * 16
_RECALIBRATION_IMAGES = 1024
"""Enough for stable batch-normalisation statistics."""


def image_header(data: Dataset) -> ImageHeader:
    """The header of images."""
    from dlx_deploy.nn.data.headers import ImageHeader

    assert isinstance(data.header, ImageHeader)
    return data.header


@dataclass(frozen=True)
class Images:
    """uint8[N, H, W, C] in a data set and a package, float32[N, C, H, W] for a network.

    ``built_in``: the kinds of data whose images have a size of their own: height, width, and the number of channels
    where the configuration says nothing.
    """

    built_in: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    noun: str = "images"
    reads: Reads = "images"
    keys: frozenset[str] = frozenset({"height", "width", "channels", "mean", "std", "scale", *FRAME_KEYS})
    libraries: tuple[str, ...] = ("pillow",)
    seen_in_calibration: bool = True

    def check(self, data: Data) -> None:
        """A height for images that have none of their own, and a value for each channel."""
        own = self.built_in.get(data.kind)
        if not own and not data.height:
            raise ConfigError(
                f"data.height is 0; data.kind {data.kind!r} needs the height in pixels to resize to, "
                "e.g. data.height = 32"
            )
        if own:
            for key, value, size in (("height", data.height, own[0]), ("width", data.width, own[1])):
                if value not in (0, size):
                    raise ConfigError(f"data.{key} is {value}; the {data.kind} are {own[0]} x {own[1]}: leave it out")
            for name in (name for name in FRAME_KEYS if getattr(data, name)):
                raise ConfigError(
                    f"data.{name} is {getattr(data, name)!r}; the {data.kind} are no image files, and have their size: "
                    "leave it out"
                )
        else:
            framing_of(data)
        check_scale(data)
        channels = self._channels(data)
        for key, values in (("mean", data.mean), ("std", data.std)):
            if len(values) not in (0, channels):
                raise ConfigError(
                    f"data.{key} has {len(values)} values {list(values)}; the images have {channels} channels: give "
                    "one value for each, or none to measure them"
                )

    def check_training(self, name: str, section: Training) -> None:
        """Batches that batch normalisation can take."""
        if section.batch_size < 2:
            raise ConfigError(
                f"{name}.batch_size is {section.batch_size}; batch normalisation needs at least 2 images in a batch"
            )

    def check_samples(self, name: str, section: Training, count: int) -> None:
        """A batch that is no larger than the split."""
        if section.batch_size > count:
            raise DataError(
                f"data: the training split has {count} images and batch_size is {section.batch_size} ({name}); "
                "a batch must not be larger than the split: add images or lower batch_size"
            )

    def check_export(self, export: Export, kind: str) -> None:
        """No length: that is of texts."""
        if export.length != "auto":
            raise ConfigError(f"export.length is {export.length!r}, and data.kind {kind!r} has images; leave it out")

    def exported(self, export: Export, profile: Profile) -> Export:
        """As it is."""
        return export

    def views(self, section: Training) -> Views | None:
        """Shifts and mirrorings; what RandAugment, mixup and CutMix draw is never the same."""
        if section.rand_augment or section.mixup or section.cutmix:
            return None
        return Views(shift_px=section.shift_px, flip=section.flip)

    def expected(self, data: Data) -> ImageInput:
        """The kind's own size or that of the configuration; three channels where neither says how many."""
        from dlx_deploy.nn.models.inputs import ImageInput

        height, width, _ = self.built_in.get(data.kind, (data.height, data.width or data.height, 0))
        return ImageInput(self._channels(data), height, width)

    def spec(self, data: Dataset) -> ImageInput:
        """The size of the images."""
        from dlx_deploy.nn.models.inputs import ImageInput

        header = image_header(data)
        return ImageInput(header.channels, header.height, header.width)

    def trains_alone(self, data: Dataset) -> bool:
        """Small images."""
        header = image_header(data)
        return header.height * header.width <= _SMALL_PX

    def feed(self, data: Dataset) -> Feed:
        """Normalised."""
        from dlx_deploy.nn.training.batches import ImageFeed

        header = image_header(data)
        return ImageFeed(header.mean, header.std)

    def pruned(self, model: nn.Module, spec: InputSpec, order: Order) -> tuple[nn.Module, PruneReport]:
        """Whole channels are removed."""
        from dlx_deploy.nn.pruning.channels import prune_channels

        return prune_channels(model, tuple(spec.example(2).shape), order)

    def settle(self, model: nn.Module, data: Dataset) -> None:
        """Batch normalisation's statistics, on some of the training images."""
        from dlx_deploy.nn.pruning.channels import recalibrate_batchnorm
        from dlx_deploy.nn.training.augment import Normalise

        header = image_header(data)
        images, _ = data.split("train")
        recalibrate_batchnorm(model, images[:_RECALIBRATION_IMAGES], Normalise(header.mean, header.std))

    def export_spec(self, spec: InputSpec, export: Export, opset: int, data: Dataset | None, outputs: Outputs) -> Spec:
        """Normalisation in the graph, with the data's mean and standard deviation."""
        from dlx_deploy.nn.export.spec import ExportSpec
        from dlx_deploy.nn.models.inputs import ImageInput

        assert isinstance(spec, ImageInput)
        half = [0.5] * spec.channels
        mean, std = (half, half) if data is None else (image_header(data).mean, image_header(data).std)
        return ExportSpec(spec.height, spec.width, spec.channels, tuple(mean), tuple(std), outputs, opset, export.batch)

    def readings(self, inputs: DeviceInputs, feeds: Arrays, files: Sequence[str]) -> Iterator[Reading]:
        """Other ways to read the same pictures."""
        from dlx_deploy.tasks.readings import image_readings

        return image_readings(inputs, feeds, files)

    def turned(self, files: Sequence[str]) -> int:
        """How many of the pictures in ``files`` are turned by their EXIF orientation."""
        from dlx_deploy.tasks.readings import turned_by_exif

        return turned_by_exif(files)

    def picture(self, inputs: DeviceInputs, feeds: Arrays, row: int) -> bytes:
        """Sample ``row`` of ``feeds`` as a PNG to be looked at."""
        from dlx_deploy.tasks.readings import png_of

        return png_of(inputs, feeds, row)

    def frames(self, inputs: DeviceInputs) -> Framing:
        """How pictures become the input, for what brings them there by other means."""
        from dlx_deploy.runtime.tasks.image_inputs import ImageInputs

        assert isinstance(inputs, ImageInputs)
        return inputs.framing

    def preprocessing(self, data: Dataset) -> dict[str, Any]:
        """Size, how pictures are brought to it, and normalisation.

        Of rules that older readers do not apply they say so.
        """
        header = image_header(data)
        framing = header.framing
        return {
            "height": header.height,
            "width": header.width,
            "channels": header.channels,
            "resize": resize_word(framing),
            "resize_size": list(framing.target),
            "interpolation": framing.interpolation,
            "fill": list(framing.fill),
            "color_order": framing.color_order,
            "normalisation": "in the graph",
            "mean": list(header.mean),
            "std": list(header.std),
        }

    def _channels(self, data: Data) -> int:
        return data.channels or self.built_in.get(data.kind, (0, 0, 3))[2]
