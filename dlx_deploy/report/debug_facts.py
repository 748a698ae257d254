"""What ``debug`` finds, as frozen values: how preprocessing differs, layers, ranges, samples that flipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

__all__ = [
    "ClippedRange",
    "ConfusionCell",
    "Flip",
    "LayerRow",
    "RangeRemedy",
    "ReadingFinding",
    "Remedy",
    "StageScore",
    "changed_cells",
]


class StageScore(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the build and its score (0..1) on the whole test split, as ``verify`` measured it."""

    model: str
    score: float


class ReadingFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that makes a package read otherwise than its build. ``name``: ``channels``, ``layout``, ``scale``,
    ``orientation``, ``normalisation``, ``resize``, ``crop``, ``interpolation`` (or several of these), ``golden``,
    ``unknown``, or the field of ``package.json``; ``said``: in words; ``remedy``: what to do."""

    name: str
    said: str
    remedy: str


class LayerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A layer, or several that share their weights; or, tried together, those that read the same integers: then the
    noise is that of the worst.

    ``sqnr_db``: its output beside that of the network in floating point, with the noise of all layers before it;
    ``own_sqnr_db``: of the layer alone; -200 (no signal) to 200 (no noise), ``None`` where it cannot be told.
    ``won``: by how much the score (0..1) rises with it in floating point, and ``answers_db`` the SQNR of the answers
    then; ``None`` where that was not tried.
    """

    layers: tuple[str, ...]
    operator: str
    precision: str
    sqnr_db: float | None
    own_sqnr_db: float | None
    won: float | None = None
    answers_db: float | None = None


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """``layers`` that won something back together: the ``score`` with them in floating point, and the ``lines`` of
    ``deploy.toml`` (or of the plan that was given) that have a build do it."""

    layers: tuple[str, ...]
    score: float
    won: float
    lines: tuple[str, ...]


class ClippedRange(msgspec.Struct, frozen=True, kw_only=True):
    """An activation's range, from calibration, and what test samples do to it. ``node``: what makes the tensor.

    ``clipped``: the share of values beyond it; ``samples``: that of samples with one; ``beyond``: how far the furthest
    is outside, in widths of the range; ``used``: the share of the range that values span.
    """

    tensor: str
    node: str
    low: float
    high: float
    seen_low: float
    seen_high: float
    clipped: float
    samples: float
    beyond: float
    used: float


class RangeRemedy(msgspec.Struct, frozen=True, kw_only=True):
    """What the score (0..1) gains where the ranges of ``tensors``, which clip much, hold all of these samples; and the
    ``lines`` of ``deploy.toml`` by which calibration sees more, if that is anything."""

    tensors: tuple[str, ...]
    won: float
    lines: tuple[str, ...]


class Flip(msgspec.Struct, frozen=True, kw_only=True):
    """A sample that the package answers otherwise. ``direction``: ``lost`` (right in floating point alone), ``won``
    (right in the package alone) or ``other`` (wrong in both, in other ways).

    ``number``: among those looked at; ``name``: what it is called, if it has a name; ``text``: what it is, if it is a
    text. ``confidence``: 0..1.
    """

    number: int
    name: str
    text: str
    direction: Literal["lost", "won", "other"]
    wanted: str
    before: str
    before_confidence: float
    after: str
    after_confidence: float


class ConfusionCell(msgspec.Struct, frozen=True, kw_only=True):
    """How often what is ``wanted`` was ``answered``: in floating point and by the package; never 0 in both."""

    wanted: str
    answered: str
    before: int
    after: int


def changed_cells(cells: Sequence[ConfusionCell]) -> list[ConfusionCell]:
    """The wrong answers that became more or fewer, those that changed most first."""
    wrong = [cell for cell in cells if cell.wanted != cell.answered and cell.before != cell.after]
    return sorted(wrong, key=lambda cell: -abs(cell.after - cell.before))
