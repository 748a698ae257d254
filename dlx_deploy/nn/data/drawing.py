"""Which sample is in which split: drawn from what there is, before a single one is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.dataset import Labels
from dlx_deploy.nn.data.listing import require_classes, warn_once
from dlx_deploy.nn.data.splits import Indices, Part, grouped, stratified, without

__all__ = ["Drawable", "draw_calibration", "draw_splits"]

# The generator of each draw has its own stream, so that changing one fraction moves no other split's draw order.
_TEST, _LIMIT_TEST, _LIMIT_TRAIN, _VALIDATION, _LIMIT_VALIDATION, _CALIBRATION, _ORDER = range(7)
_MOST_CALIBRATION = 4
"""One in so many of the images to judge by goes to calibration at most, where it has none of its own."""


class Drawable(Protocol):
    """Samples by the split that they come in: what a draw has to know of a ``DataSource``."""

    @property
    def noun(self) -> str:
        """What the samples are."""
        ...

    @property
    def place(self) -> str:
        """What one split lies in."""
        ...

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


def draw_splits(config: Data, source: Drawable, seed: int) -> dict[str, Part]:
    """``train``, ``validation`` and ``test``, disjoint, limited and shuffled; ``calibration`` if it is none of train.

    Without samples to train on, train is empty, and what else is missing is set aside from those to judge by.

    Raises:
        DataError: a split is empty, or has nothing of a class that it must have.
    """
    own = "train" in source.strata
    parts = _for_training(config, source, seed) if own else _for_evaluation(config, source, seed)
    if own:
        _refuse_empty(config, source, parts)
        _refuse_missing(config, source, parts)
    # Folders come class by class; shuffled, the first so many images of a split stand for all of it.
    rng = np.random.default_rng([seed, _ORDER])
    shuffled = {
        name: Part(parts[name].origin, rng.permutation(parts[name].positions))
        for name in ("test", "train", "validation")
    }
    if "calibration" in source.strata:
        rng = np.random.default_rng([seed, _CALIBRATION])
        picked = stratified(source.strata["calibration"], config.calibration_images, rng)
        shuffled["calibration"] = Part("calibration", rng.permutation(picked))
    elif not own:
        shuffled["calibration"] = parts["calibration"]
    return shuffled


def draw_calibration(config: Data, strata: Labels, seed: int) -> Indices:
    """Positions in the training split, whose classes are ``strata``."""
    count = config.calibration_images
    if count > len(strata):
        warn_once(f"data.calibration_images is {count}; the training split has {len(strata)}: all are taken")
    return stratified(strata, min(count, len(strata)), np.random.default_rng([seed, _CALIBRATION]))


def _for_training(config: Data, source: Drawable, seed: int) -> dict[str, Part]:
    strata = source.strata["train"]
    pool: Indices = np.arange(len(strata))
    parts: dict[str, Part] = {}
    if "test" in source.strata:
        parts["test"] = Part("test", np.arange(len(source.strata["test"])))
    else:
        taken, pool = _take(source, "train", pool, config.test_fraction, np.random.default_rng([seed, _TEST]))
        parts["test"] = Part("train", taken)
    parts["test"] = _limit(source, parts["test"], config.limit_test, np.random.default_rng([seed, _LIMIT_TEST]))
    limited = _limit(source, Part("train", pool), config.limit_train, np.random.default_rng([seed, _LIMIT_TRAIN]))
    pool = limited.positions
    if "validation" in source.strata:
        parts["validation"] = _given_validation(config, source, seed)
    else:
        rng = np.random.default_rng([seed, _VALIDATION])
        taken, pool = _take(source, "train", pool, config.validation_fraction, rng)
        parts["validation"] = Part("train", taken)
    parts["train"] = Part("train", pool)
    return parts


def _given_validation(config: Data, source: Drawable, seed: int) -> Part:
    whole = Part("validation", np.arange(len(source.strata["validation"])))
    return _limit(source, whole, config.limit_train, np.random.default_rng([seed, _LIMIT_VALIDATION]))


def _for_evaluation(config: Data, source: Drawable, seed: int) -> dict[str, Part]:
    """Splits of what is there to judge by: nothing is trained."""
    origin = "test" if "test" in source.strata else "validation"
    strata = source.strata[origin]
    pool: Indices = np.arange(len(strata))
    parts = {"train": Part(origin, pool[:0])}
    if "validation" in source.strata and origin == "test":
        parts["validation"] = _given_validation(config, source, seed)
    else:
        rng = np.random.default_rng([seed, _VALIDATION])
        taken, pool = _set_aside(source, origin, pool, max(round(len(pool) * config.validation_fraction), 1), rng)
        parts["validation"] = Part(origin, taken)
    if "calibration" not in source.strata:
        most = max(len(strata) // _MOST_CALIBRATION, 1)
        rng = np.random.default_rng([seed, _CALIBRATION])
        taken, pool = _set_aside(source, origin, pool, min(config.calibration_images, most), rng)
        parts["calibration"] = Part(origin, rng.permutation(taken))
        if len(taken) < config.calibration_images:
            warn_once(
                f"calibration has {len(taken)} {source.noun}, and data.calibration_images is "
                f"{config.calibration_images}: one in {_MOST_CALIBRATION} of those to judge by at most; add a folder "
                "'calibration' of others, without labels"
            )
    if len(pool) < len(strata):
        warn_once(
            f"{len(strata) - len(pool)} of {len(strata)} {source.noun} of the {origin} {source.place} are set aside "
            "for validation and calibration: they are not tested on"
        )
    limited = np.random.default_rng([seed, _LIMIT_TEST])
    parts["test"] = _limit(source, Part(origin, pool), config.limit_test, limited)
    if not len(parts["test"].positions):
        raise DataError(
            f"the test split is empty: there are {len(strata)} {source.noun}, and validation and calibration take "
            "some; add others"
        )
    _refuse_untested(config, source, parts["test"])
    return parts


def _refuse_untested(config: Data, source: Drawable, test: Part) -> None:
    """A limit must leave something of each class; a draw that cannot is said."""
    missing = [source.classes[i] for i in source.lost(test)]
    where = f"the test split of {len(test.positions)} {source.noun}"
    require_classes(missing, where, config.allow_missing_classes or not config.limit_test)


def _set_aside(
    source: Drawable, split: str, pool: Indices, count: int, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """``count`` of ``pool``, and the rest, which has something of each class if there is enough."""
    strata = source.strata[split][pool]
    sizes = np.unique(strata, return_counts=True)[1]
    leave = 1 if int((sizes - 1).sum()) >= count else 0
    picked = _picked(source, split, pool, count, rng, leave)
    return pool[picked], pool[without(len(pool), picked)]


def _take(
    source: Drawable, split: str, pool: Indices, fraction: float, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """A stratified ``fraction`` of ``pool``, and the rest of it; one image of each class stays in the rest."""
    picked = _picked(source, split, pool, round(len(pool) * fraction), rng, 1)
    return pool[picked], pool[without(len(pool), picked)]


def _picked(source: Drawable, split: str, pool: Indices, count: int, rng: np.random.Generator, leave: int) -> Indices:
    """Positions in ``pool``: samples, or whole groups of them where the source has groups."""
    strata, groups = source.strata[split][pool], getattr(source, "groups", {}).get(split)
    if groups is None:
        return stratified(strata, count, rng, leave=leave)
    return grouped(strata, groups[pool], count, rng, leave=leave)


def _limit(source: Drawable, part: Part, limit: int, rng: np.random.Generator) -> Part:
    if not limit or limit >= len(part.positions):
        return part
    return Part(part.origin, part.positions[stratified(source.strata[part.origin][part.positions], limit, rng)])


def _refuse_empty(config: Data, source: Drawable, parts: Mapping[str, Part]) -> None:
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


def _refuse_missing(config: Data, source: Drawable, parts: Mapping[str, Part]) -> None:
    """A class that a draw or a limit keeps out of test is unknown to the gate; out of validation it is said."""
    for name in ("test", "validation"):
        key, limit = ("limit_test", config.limit_test) if name == "test" else ("limit_train", config.limit_train)
        reasons = [f"data.{key} = {limit}"] if limit else []
        if parts[name].origin == "train":
            reasons.append(f"data.{name}_fraction = {getattr(config, f'{name}_fraction'):g}")
        where = f"the {name} split{' of ' * bool(reasons)}{' and '.join(reasons)}"
        allowed = name == "validation" or config.allow_missing_classes
        require_classes([source.classes[i] for i in source.lost(parts[name])], where, allowed)
