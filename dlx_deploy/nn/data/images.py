"""Images on their way into the artifact: where they come from, decoded into arrays, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data import digits
from dlx_deploy.nn.data.artifact import ImageHeader, Images, Labels
from dlx_deploy.nn.data.imagefolder import decode_images, list_images
from dlx_deploy.nn.data.splits import Indices, Part
from dlx_deploy.progress import Progress

__all__ = ["ImageSource", "image_source"]


@dataclass(frozen=True)
class ImageSource:
    """Labelled images not yet decoded: ``fill(split, positions, into)`` writes pixels."""

    classes: tuple[str, ...]
    labels: Mapping[str, Labels]
    shape: tuple[int, int, int]  # height, width, channels
    fill: Callable[[str, Indices, Images], None]
    config: Data

    def write(self, out: Path, name: str, part: Part) -> None:
        """Decode straight into the file, so that no split needs to fit in memory twice."""
        path = out / f"{name}.images.npy"
        images: Images = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.uint8, shape=(len(part.positions), *self.shape)
        )
        self.fill(part.origin, part.positions, images)
        images.flush()  # type: ignore[attr-defined]

    def draw(self, out: Path, drawn: Indices) -> None:
        """The images of the training split at ``drawn``, as those of calibration."""
        np.save(out / "calibration.images.npy", _train(out)[drawn], allow_pickle=False)

    def header(self, out: Path, counts: Mapping[str, int]) -> ImageHeader:
        """``dataset.json``, once the splits are written."""
        height, width, channels = self.shape
        mean, std = _normalisation(self.config, _train(out))
        return ImageHeader(
            classes=list(self.classes),
            height=height,
            width=width,
            channels=channels,
            mean=mean,
            std=std,
            splits=dict(counts),
        )


def image_source(config: Data, progress: Progress) -> ImageSource:
    """The images that ``config`` names.

    Raises:
        DataError: their folders or sizes cannot be used. EnvironmentMissing: a library is not installed.
    """
    return _digits(config) if config.kind == "digits" else _imagefolder(config, progress)


def _digits(config: Data) -> ImageSource:
    for key, value in (("height", config.height), ("width", config.width)):
        if value not in (0, digits.SIDE):
            raise DataError(f"data.{key} is {value}; the digits are {digits.SIDE} x {digits.SIDE}: leave it out")
    channels = config.channels or 1
    images, labels = digits.load_digits(channels)

    def fill(split: str, positions: Indices, into: Images) -> None:
        into[:] = images[positions]

    return ImageSource(digits.CLASSES, {"train": labels}, (digits.SIDE, digits.SIDE, channels), fill, config)


def _imagefolder(config: Data, progress: Progress) -> ImageSource:
    if not config.path:
        raise DataError("data.path is empty; data.kind 'imagefolder' needs the folder that holds train/CLASS/*.jpg")
    if not config.height:
        raise DataError("data.height is 0; data.kind 'imagefolder' needs the height in pixels to resize to, e.g. 32")
    classes, listings = list_images(Path(config.path))

    def fill(split: str, positions: Indices, into: Images) -> None:
        decode_images([listings[split].files[i] for i in positions], into, progress)

    shape = (config.height, config.width or config.height, config.channels or 3)
    return ImageSource(classes, {name: listing.labels for name, listing in listings.items()}, shape, fill, config)


def _train(out: Path) -> Images:
    images: Images = np.load(out / "train.images.npy", mmap_mode="r", allow_pickle=False)
    return images


def _normalisation(config: Data, train: Images) -> tuple[list[float], list[float]]:
    mean, std = list(config.mean), list(config.std)
    if not mean or not std:
        measured = _measure(train)
        mean, std = mean or measured[0], std or measured[1]
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != train.shape[3]:
            raise DataError(
                f"data.{key} has {len(values)} values {values}; the images have {train.shape[3]} channels: "
                "give one value for each, or none to measure them"
            )
    return mean, std


def _measure(train: Images) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel on the 0..1 scale, from exact integer counts."""
    counts = np.zeros((train.shape[3], 256), dtype=np.int64)
    for start in range(0, len(train), 256):  # bincount widens to int64: a part at a time
        part = train[start : start + 256]
        counts += np.stack([np.bincount(part[..., c].reshape(-1), minlength=256) for c in range(train.shape[3])])
    levels = np.arange(256, dtype=np.float64) / 255
    means = [float(n @ levels / n.sum()) for n in counts]
    deviations = [float(np.sqrt(n @ (levels - m) ** 2 / n.sum())) for n, m in zip(counts, means, strict=True)]
    # A constant channel has no spread: one grey level keeps the division finite.
    return [round(m, 6) for m in means], [round(max(d, 1 / 255), 6) for d in deviations]
