"""Which sample a build would put into which split, and how many there are: of any source of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.dataset import SPLITS, Labels
from dlx_deploy.nn.data.drawing import Drawable, draw_splits
from dlx_deploy.nn.data.slices import slice_sizes
from dlx_deploy.nn.data.splits import Part
from dlx_deploy.nn.data.survey.findings import Example, Finding, SplitSeen
from dlx_deploy.nn.data.targets import ClassTargets, SampleTargets

__all__ = ["Drawn", "Samples", "draw", "examples", "tested_slices"]

_MOST_EXAMPLES = 1200
_PER_CLASS = 8
"""A sheet shows so many of each class and split, or fewer where there are many classes."""


@dataclass(frozen=True)
class Samples:
    """Samples by the split that they come in, as ``drawing.Drawable`` has them."""

    noun: str
    place: str
    classes: tuple[str, ...]
    targets: SampleTargets
    groups: Mapping[str, Labels] = field(default_factory=dict)

    @property
    def strata(self) -> Mapping[str, Labels]:
        """Those of the targets."""
        return self.targets.strata

    def lost(self, part: Part) -> list[int]:
        """Those of the targets."""
        return self.targets.lost(part)


@dataclass(frozen=True)
class Drawn:
    """``parts``: what each split would have. ``refusal``: why a build could not draw them, and they are as given."""

    parts: Mapping[str, Part]
    splits: tuple[SplitSeen, ...]
    refusal: Finding | None = None


def draw(config: Data, source: Drawable, seed: int) -> Drawn:
    """The splits that a build with ``seed`` draws of ``source``; those that are given where it would refuse to."""
    refusal = None
    try:
        if not {"train", "validation", "test"} & set(source.strata):
            raise DataError("there are no images or texts with classes; a network is trained or judged by them")
        parts = draw_splits(config, source, seed)
    except DataError as e:
        refusal = Finding("splits", "refused", str(e))
        parts = {name: Part(name, np.arange(len(labels))) for name, labels in source.strata.items()}
    splits = [_seen(name, parts[name], source) for name in SPLITS if name in parts]
    train = len(parts["train"].positions) if "train" in parts else 0
    if "calibration" not in parts and train:
        splits.insert(1, SplitSeen("calibration", min(config.calibration_images, train), "train", ()))
    return Drawn(parts, tuple(splits), refusal)


def tested_slices(config: Data, drawn: Drawn, rows: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, int]:
    """How many test samples each slice of ``data.slices`` has; ``rows``: split that samples come in → what each has in
    these columns."""
    part = drawn.parts.get("test")
    if not config.slices or part is None or part.origin not in rows:
        return {}
    kept = [rows[part.origin][int(i)] for i in part.positions]
    return slice_sizes({name: [row[i] for row in kept] for i, name in enumerate(config.slices)})


def examples(drawn: Drawn, source: Drawable, name: Mapping[str, Sequence[str]]) -> tuple[Example, ...]:
    """Some of each class in each split; ``name``: split that samples come in → what each is called."""
    shown = [split for split in drawn.splits if split.name in drawn.parts]
    per_class = max(min(_PER_CLASS, _MOST_EXAMPLES // max(len(source.classes) * len(shown), 1)), 1)
    found: list[Example] = []
    for split in shown:
        part = drawn.parts[split.name]
        labels, counts = source.strata[part.origin], dict.fromkeys(range(-1, len(source.classes)), 0)
        for position in part.positions:
            number = int(labels[position])
            counts[number] += 1
            if counts[number] <= per_class:
                label = source.classes[number] if number >= 0 else ""
                found.append(Example(split.name, label, name[part.origin][position]))
    found.sort(key=lambda example: (example.group, example.split))
    return tuple(found[:_MOST_EXAMPLES])


def _seen(name: str, part: Part, source: Drawable) -> SplitSeen:
    labels = source.strata[part.origin][part.positions]
    known = labels[labels >= 0]
    counts = np.bincount(known, minlength=len(source.classes)).tolist() if _classed(source) else []
    return SplitSeen(name, len(part.positions), "" if part.origin == name else part.origin, tuple(counts))


def _classed(source: Drawable) -> bool:
    """Whether the strata of ``source`` are the classes of its samples, each of one: those of masks are not."""
    return isinstance(getattr(source, "targets", None), ClassTargets)
