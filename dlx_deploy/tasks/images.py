"""Images as what networks read: whatever they answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx_deploy.config import Data, Export, Prune, Training
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.targets import Profile

if TYPE_CHECKING:
    from torch import nn

    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.data.headers import ImageHeader
    from dlx_deploy.nn.export.spec import Spec
    from dlx_deploy.nn.models.families import Reads
    from dlx_deploy.nn.models.inputs import ImageInput, InputSpec
    from dlx_deploy.nn.models.outputs import Outputs
    from dlx_deploy.nn.pruning.channels import PruneReport
    from dlx_deploy.nn.training.batches import Feed

__all__ = ["DIGITS", "Images", "image_classes", "image_header"]

DIGITS = "digits"
_DIGIT_PX = 8
"""The side of a scanned digit."""
_DIGIT_CLASSES = 10
_SMALL_PX = 16 * 16
_RECALIBRATION_IMAGES = 1024
"""Enough for stable batch-normalisation statistics."""


def image_header(data: Dataset) -> ImageHeader:
    """The header of images."""
    from dlx_deploy.nn.data.headers import ImageHeader

    assert isinstance(data.header, ImageHeader)
    return data.header


def image_classes(data: Data) -> int | None:
    """How many classes there are, from the names of folders."""
    from dlx_deploy.nn.data.listing import list_folder

    return _DIGIT_CLASSES if data.kind == DIGITS else len(list_folder(Path(data.path)).classes)


def _channels(data: Data) -> int:
    return data.channels or (1 if data.kind == DIGITS else 3)


@dataclass(frozen=True)
class Images:
    """uint8[N, H, W, C] in a data set and a package, float32[N, C, H, W] for a network."""

    noun: str = "images"
    reads: Reads = "images"
    keys: frozenset[str] = frozenset({"height", "width", "channels", "mean", "std"})
    seen_in_calibration: bool = True

    def check(self, data: Data) -> None:
        """A height for images that have none of their own, and a value for each channel."""
        if data.kind != DIGITS and not data.height:
            raise ConfigError(
                f"data.height is 0; data.kind {data.kind!r} needs the height in pixels to resize to, "
                "e.g. data.height = 32"
            )
        if data.kind == DIGITS:
            for key, value in (("height", data.height), ("width", data.width)):
                if value not in (0, _DIGIT_PX):
                    raise ConfigError(f"data.{key} is {value}; the digits are {_DIGIT_PX} x {_DIGIT_PX}: leave it out")
        channels = _channels(data)
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

    def changes(self, section: Training) -> bool:
        """Augmentation."""
        return section.augments

    def expected(self, data: Data) -> ImageInput:
        """One channel for digits, else three, where the configuration says nothing."""
        from dlx_deploy.nn.models.inputs import ImageInput

        height = data.height or _DIGIT_PX
        return ImageInput(_channels(data), height, data.width or height)

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

    def pruned(self, model: nn.Module, spec: InputSpec, params: Prune) -> tuple[nn.Module, PruneReport]:
        """Whole channels are removed."""
        from dlx_deploy.nn.pruning.channels import prune_channels

        return prune_channels(
            model,
            tuple(spec.example(2).shape),
            params.reduce_macs,
            round_to=params.round_to,
            keep_trunk=params.keep_trunk,
            trace_seconds=params.trace_seconds,
        )

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

    def preprocessing(self, data: Dataset) -> dict[str, Any]:
        """Size, filter and normalisation."""
        header = image_header(data)
        return {
            "height": header.height,
            "width": header.width,
            "channels": header.channels,
            "resize": "bilinear",
            "normalisation": "in the graph",
            "mean": list(header.mean),
            "std": list(header.std),
        }
