"""From labelled samples to a data set on disk: split, decode or encode, measure, write."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.dataset import Header, Labels, write_header
from dlx_deploy.nn.data.listing import require_classes
from dlx_deploy.nn.data.splits import Indices, Part, stratified, without

__all__ = ["DataSource", "prepare"]

log = logging.getLogger(__name__)

# The generator of each draw has its own stream, so that changing one fraction moves no other split's draw order.
_TEST, _LIMIT_TEST, _LIMIT_TRAIN, _VALIDATION, _LIMIT_VALIDATION, _CALIBRATION, _ORDER = range(7)


class DataSource(Protocol):
    """Labelled samples, by the split that they come in: ``train``, and maybe ``validation`` and ``test``.

    ``noun``: what the samples are; ``place``: what one split lies in.
    """

    noun: ClassVar[str]
    place: ClassVar[str]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        ...

    def lost(self, part: Part) -> list[int]:
        """The classes of which the split that ``part`` is drawn from has samples and it has none."""
        ...

    @property
    def strata(self) -> Mapping[str, Labels]:
        """Split → the class of each sample, by which splits are drawn; all 0 where a sample is of no one class."""
        ...

    @property
    def counts(self) -> Mapping[str, float]:
        """What was left out while listing: metrics."""
        ...

    def write(self, out: Path, name: str, part: Part) -> None:
        """Write the inputs of one split; that of ``train`` comes first."""

    def separate(self, out: Path, parts: Mapping[str, Part]) -> tuple[dict[str, Part], dict[str, float]]:
        """The written ``parts`` without inputs that are in another, and metrics of what was found."""
        ...

    def write_targets(self, out: Path, name: str, part: Part) -> None:
        """Write the targets of one split, once it is what it stays; of ``train`` first."""

    def draw(self, out: Path, drawn: Indices) -> None:
        """Write the inputs of the calibration split: some of ``train``."""

    def header(self, out: Path, counts: Mapping[str, int]) -> Header:
        """What ``dataset.json`` says."""
        ...


def prepare(source: DataSource, config: Data, out: Path, seed: int) -> dict[str, float]:
    """Write what ``source`` gives into the folder ``out``, split as ``config`` says; gives back its counts.

    Raises:
        DataError: the images or texts, their files or the splits cannot be used.
        EnvironmentMissing: a library that reads them is not installed.
    """
    parts = _split(config, source, seed)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("train", "validation", "test"):
        source.write(out, name, parts[name])
    parts, counted = source.separate(out, parts)
    train = parts["train"]
    drawn = _calibration(config, source.strata["train"][train.positions], seed)
    source.draw(out, drawn)
    parts = {"train": train, **parts, "calibration": Part(train.origin, train.positions[drawn])}
    for name, part in parts.items():
        source.write_targets(out, name, part)
    counts = {name: len(part.positions) for name, part in parts.items()}
    write_header(out, source.header(out, counts))
    sizes = {f"{name}_{source.noun}": float(n) for name, n in counts.items()} | {"classes": float(len(source.classes))}
    return {**sizes, **source.counts, **counted}


def _split(config: Data, source: DataSource, seed: int) -> dict[str, Part]:
    """The three disjoint splits, limited, before a single image is decoded."""
    strata = source.strata["train"]
    pool: Indices = np.arange(len(strata))
    parts: dict[str, Part] = {}
    if "test" in source.strata:
        parts["test"] = Part("test", np.arange(len(source.strata["test"])))
    else:
        taken, pool = _take(strata, pool, config.test_fraction, np.random.default_rng([seed, _TEST]))
        parts["test"] = Part("train", taken)
    parts["test"] = _limit(source, parts["test"], config.limit_test, np.random.default_rng([seed, _LIMIT_TEST]))
    limited = _limit(source, Part("train", pool), config.limit_train, np.random.default_rng([seed, _LIMIT_TRAIN]))
    pool = limited.positions
    if "validation" in source.strata:
        whole = Part("validation", np.arange(len(source.strata["validation"])))
        rng = np.random.default_rng([seed, _LIMIT_VALIDATION])
        parts["validation"] = _limit(source, whole, config.limit_train, rng)
    else:
        rng = np.random.default_rng([seed, _VALIDATION])
        taken, pool = _take(strata, pool, config.validation_fraction, rng)
        parts["validation"] = Part("train", taken)
    parts["train"] = Part("train", pool)
    _refuse_empty(config, source, parts)
    _refuse_missing(config, source, parts)
    # Folders come class by class; shuffled, the first so many images of a split stand for all of it.
    rng = np.random.default_rng([seed, _ORDER])
    return {name: Part(part.origin, rng.permutation(part.positions)) for name, part in sorted(parts.items())}


def _take(strata: Labels, pool: Indices, fraction: float, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """A stratified ``fraction`` of ``pool``, and the rest of it; one image of each class stays in the rest."""
    picked = stratified(strata[pool], round(len(pool) * fraction), rng, leave=1)
    return pool[picked], pool[without(len(pool), picked)]


def _limit(source: DataSource, part: Part, limit: int, rng: np.random.Generator) -> Part:
    if not limit or limit >= len(part.positions):
        return part
    return Part(part.origin, part.positions[stratified(source.strata[part.origin][part.positions], limit, rng)])


def _refuse_empty(config: Data, source: DataSource, parts: Mapping[str, Part]) -> None:
    noun, place, strata = source.noun, source.place, source.strata["train"]
    if lost := source.lost(parts["train"]):
        raise DataError(
            f"data.limit_train is {config.limit_train} and leaves {len(lost)} of {len(source.classes)} classes "
            f"without a training {noun[:-1]}; raise it"
        )
    for name in ("test", "validation"):
        if not len(parts[name].positions):
            raise DataError(
                f"the {name} split is empty: data.{name}_fraction is {getattr(config, f'{name}_fraction'):g}, the "
                f"training {place} has {len(strata)} {noun} (data.limit_train = {config.limit_train}) and one of each "
                f"class stays there; raise the fraction, or add a {name} {place} with {noun}"
            )


def _refuse_missing(config: Data, source: DataSource, parts: Mapping[str, Part]) -> None:
    """A class that a draw or a limit keeps out of test is unknown to the gate; out of validation it is said."""
    for name in ("test", "validation"):
        key, limit = ("limit_test", config.limit_test) if name == "test" else ("limit_train", config.limit_train)
        reasons = [f"data.{key} = {limit}"] if limit else []
        if parts[name].origin == "train":
            reasons.append(f"data.{name}_fraction = {getattr(config, f'{name}_fraction'):g}")
        where = f"the {name} split{' of ' * bool(reasons)}{' and '.join(reasons)}"
        allowed = name == "validation" or config.allow_missing_classes
        require_classes([source.classes[i] for i in source.lost(parts[name])], where, allowed)


def _calibration(config: Data, strata: Labels, seed: int) -> Indices:
    count = config.calibration_images
    if count > len(strata):
        log.warning("data.calibration_images is %d; the training split has %d: all are taken", count, len(strata))
    return stratified(strata, min(count, len(strata)), np.random.default_rng([seed, _CALIBRATION]))
