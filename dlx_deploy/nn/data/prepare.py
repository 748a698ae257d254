"""From the ``[data]`` table to a data artifact: list, split, decode, measure, write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data import digits
from dlx_deploy.nn.data.artifact import Header, Images, Labels, write_header
from dlx_deploy.nn.data.imagefolder import decode_images, list_images
from dlx_deploy.nn.data.splits import Indices, stratified, without
from dlx_deploy.progress import Progress, silent

__all__ = ["prepare"]

log = logging.getLogger(__name__)

# The generator of each draw has its own stream, so that changing one fraction moves no other split's draw order.
_TEST, _LIMIT_TEST, _LIMIT_TRAIN, _VALIDATION, _LIMIT_VALIDATION, _CALIBRATION, _ORDER = range(7)


@dataclass(frozen=True)
class _Source:
    """Labelled images not yet decoded: ``fill(split, positions, into)`` writes pixels."""

    classes: tuple[str, ...]
    labels: Mapping[str, Labels]
    shape: tuple[int, int, int]  # height, width, channels
    fill: Callable[[str, Indices, Images], None]


@dataclass(frozen=True)
class _Part:
    """A split: positions in the source folder ``origin``."""

    origin: str
    positions: Indices


def prepare(config: Data, out: Path, seed: int, progress: Progress = silent) -> dict[str, float]:
    """Write the data artifact that ``config`` describes into the folder ``out``; gives back its counts.

    Raises:
        DataError: the images, their folders or the splits cannot be used.
        EnvironmentMissing: a library that reads them is not installed.
    """
    source = _digits(config) if config.kind == "digits" else _imagefolder(config, progress)
    parts = _split(config, source, seed)
    out.mkdir(parents=True, exist_ok=True)
    train = _write(out, "train", source, parts["train"])
    drawn = _calibration(config, train[1], seed)
    np.save(out / "calibration.images.npy", train[0][drawn], allow_pickle=False)
    np.save(out / "calibration.labels.npy", train[1][drawn], allow_pickle=False)
    for name in ("validation", "test"):
        _write(out, name, source, parts[name])
    counts = {name: len(part.positions) for name, part in parts.items()} | {"calibration": len(drawn)}
    height, width, channels = source.shape
    mean, std = _normalisation(config, train[0])
    header = Header(
        classes=list(source.classes),
        height=height,
        width=width,
        channels=channels,
        mean=mean,
        std=std,
        splits=counts,
    )
    write_header(out, header)
    return {f"{name}_images": float(n) for name, n in counts.items()} | {"classes": float(len(source.classes))}


def _digits(config: Data) -> _Source:
    for key, value in (("height", config.height), ("width", config.width)):
        if value not in (0, digits.SIDE):
            raise DataError(f"data.{key} is {value}; the digits are {digits.SIDE} x {digits.SIDE}: leave it out")
    channels = config.channels or 1
    images, labels = digits.load_digits(channels)

    def fill(split: str, positions: Indices, into: Images) -> None:
        into[:] = images[positions]

    return _Source(digits.CLASSES, {"train": labels}, (digits.SIDE, digits.SIDE, channels), fill)


def _imagefolder(config: Data, progress: Progress) -> _Source:
    if not config.path:
        raise DataError("data.path is empty; data.kind 'imagefolder' needs the folder that holds train/CLASS/*.jpg")
    if not config.height:
        raise DataError("data.height is 0; data.kind 'imagefolder' needs the height in pixels to resize to, e.g. 32")
    classes, listings = list_images(Path(config.path))

    def fill(split: str, positions: Indices, into: Images) -> None:
        decode_images([listings[split].files[i] for i in positions], into, progress)

    shape = (config.height, config.width or config.height, config.channels or 3)
    return _Source(classes, {name: listing.labels for name, listing in listings.items()}, shape, fill)


def _split(config: Data, source: _Source, seed: int) -> dict[str, _Part]:
    """The three disjoint splits, limited, before a single image is decoded."""
    labels = source.labels["train"]
    pool: Indices = np.arange(len(labels))
    parts: dict[str, _Part] = {}
    if "test" in source.labels:
        parts["test"] = _Part("test", np.arange(len(source.labels["test"])))
    else:
        taken, pool = _take(labels, pool, config.test_fraction, np.random.default_rng([seed, _TEST]))
        parts["test"] = _Part("train", taken)
    parts["test"] = _limit(source, parts["test"], config.limit_test, np.random.default_rng([seed, _LIMIT_TEST]))
    limited = _limit(source, _Part("train", pool), config.limit_train, np.random.default_rng([seed, _LIMIT_TRAIN]))
    pool = limited.positions
    if "validation" in source.labels:
        whole = _Part("validation", np.arange(len(source.labels["validation"])))
        rng = np.random.default_rng([seed, _LIMIT_VALIDATION])
        parts["validation"] = _limit(source, whole, config.limit_train, rng)
    else:
        rng = np.random.default_rng([seed, _VALIDATION])
        taken, pool = _take(labels, pool, config.validation_fraction, rng)
        parts["validation"] = _Part("train", taken)
    parts["train"] = _Part("train", pool)
    _refuse_empty(config, source.labels["train"], parts)
    # Folders come class by class; shuffled, the first so many images of a split stand for all of it.
    rng = np.random.default_rng([seed, _ORDER])
    return {name: _Part(part.origin, rng.permutation(part.positions)) for name, part in sorted(parts.items())}


def _take(labels: Labels, pool: Indices, fraction: float, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """A stratified ``fraction`` of ``pool``, and the rest of it; one image of each class stays in the rest."""
    picked = stratified(labels[pool], round(len(pool) * fraction), rng, leave=1)
    return pool[picked], pool[without(len(pool), picked)]


def _limit(source: _Source, part: _Part, limit: int, rng: np.random.Generator) -> _Part:
    if not limit or limit >= len(part.positions):
        return part
    return _Part(part.origin, part.positions[stratified(source.labels[part.origin][part.positions], limit, rng)])


def _refuse_empty(config: Data, labels: Labels, parts: Mapping[str, _Part]) -> None:
    missing = np.setdiff1d(labels, labels[parts["train"].positions])
    if len(missing):
        raise DataError(
            f"data.limit_train is {config.limit_train} and leaves {len(missing)} of {len(np.unique(labels))} classes "
            "without a training image; raise it"
        )
    for name in ("test", "validation"):
        if not len(parts[name].positions):
            raise DataError(
                f"the {name} split is empty: data.{name}_fraction is {getattr(config, f'{name}_fraction'):g}, the "
                f"training folder has {len(labels)} images (data.limit_train = {config.limit_train}) and one of each "
                f"class stays there; raise the fraction, or add a {name} folder with images"
            )


def _calibration(config: Data, labels: Labels, seed: int) -> Indices:
    count = config.calibration_images
    if count > len(labels):
        log.warning("data.calibration_images is %d; the training split has %d: all are taken", count, len(labels))
    return stratified(labels, min(count, len(labels)), np.random.default_rng([seed, _CALIBRATION]))


def _write(out: Path, name: str, source: _Source, part: _Part) -> tuple[Images, Labels]:
    """Decode straight into the file, so that no split needs to fit in memory twice."""
    labels = source.labels[part.origin][part.positions]
    path = out / f"{name}.images.npy"
    images: Images = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.uint8, shape=(len(part.positions), *source.shape)
    )
    source.fill(part.origin, part.positions, images)
    images.flush()  # type: ignore[attr-defined]
    np.save(out / f"{name}.labels.npy", labels, allow_pickle=False)
    return images, labels


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
