"""Mean intersection over union of a model beside its teacher's, by a paired bootstrap over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlx_deploy.config import Gate
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.runtime.statistics.resampled import (
    LEVELS,
    Bounds,
    Drops,
    judge_drops,
    judge_value,
    units_that_agree,
)
from dlx_deploy.tasks.flips import refuse_counted
from dlx_deploy.tasks.gates import CONSTANT, constant_gate, drop_gate, shipped_notes, split_notes, teacher_notes
from dlx_deploy.tasks.verification import REFERENCE, Accuracy, Drop, Evidence, Row

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Arrays

__all__ = ["MeanIouComparison"]

_LOWERS, _UPPERS, _DROP_LOWERS, _DROP_UPPERS = "lowers", "uppers", "drop_lowers", "drop_uppers"
_IMAGES_LOST = 2.0
"""An image on which one model alone is right costs mean IoU about so much of an image: what it lacks in the
intersection is in the union as well."""


@dataclass(frozen=True)
class MeanIouComparison:
    """The statistic is one array, int64[n, K, 3]: of each image and class the right, surplus and missing pixels.

    Evidence: bounds of a model's mean IoU and of its drop, at the confidences of ``resampled.LEVELS``. Facts:
    ``constant``, the mean IoU (0..1) of always answering the class that most pixels have.
    """

    name: str = "miou"
    title: str = "mIoU"
    target: str = "mask"

    def check(self, budgets: Gate) -> None:
        """Resampling tells no more than the highest of ``LEVELS``; nothing is counted by class."""
        if budgets.confidence > LEVELS[-1]:
            raise ConfigError(
                f"gate.confidence is {budgets.confidence:g}; {self.title} is judged by resampling images, which tells "
                f"no bound above {LEVELS[-1]:g}: set that or less"
            )
        refuse_counted(budgets, self.title)

    def score(self, statistic: Arrays) -> float:
        """Mean IoU."""
        from dlx_deploy.runtime.tasks.mask_counts import mean_iou

        (counts,) = statistic.values()
        return float(mean_iou(counts.sum(axis=0, keepdims=True).astype("float64"))[0])

    def evidence(self, teacher: Arrays, model: Arrays) -> Evidence:
        """Bounds of mean IoU and of its drop."""
        from dlx_deploy.runtime.tasks.mask_counts import mean_iou_bounds, mean_iou_drops

        (ours,), (theirs,) = teacher.values(), model.values()
        drops, (_, own) = mean_iou_drops(ours, theirs), mean_iou_bounds(theirs)
        return {
            _LOWERS: own.lowers,
            _UPPERS: own.uppers,
            _DROP_LOWERS: drops.bounds.lowers,
            _DROP_UPPERS: drops.bounds.uppers,
        }

    def facts(self, targets: Arrays) -> dict[str, float]:
        """Mean IoU of the best constant answer: its share of the pixels, over the classes that there are."""
        import numpy as np

        from dlx_deploy.runtime.tasks.mask_files import IGNORED

        counts = np.zeros(256, np.int64)
        for mask in targets[self.target]:  # one at a time: the split may be a memory map
            counts += np.bincount(np.asarray(mask).reshape(-1), minlength=256)
        counts[IGNORED] = 0
        classes = int(np.count_nonzero(counts))
        return {CONSTANT: float(counts.max() / counts.sum() / classes) if classes else 0.0}

    def judge(self, budgets: Gate, accuracy: Accuracy) -> list[GateResult]:
        """The drop always; a floor where a budget is set, and a constant answer where no floor says more."""
        drops = _drops(accuracy.row(accuracy.shipped), accuracy)
        seen = judge_drops(drops, accuracy.title, budgets.max_drop, budgets.confidence)
        results = [drop_gate(budgets, accuracy, seen.verdict, Drop(seen.drop, seen.upper), seen.explain())]
        if budgets.min_accuracy:
            results.append(_judge_floor(budgets, accuracy))
        elif not budgets.allow_chance:
            results.append(constant_gate(budgets, accuracy, _lower(accuracy, REFERENCE, budgets)))
        return results

    def drop(self, row: Row, accuracy: Accuracy, confidence: float) -> Drop:
        """The drop and its bound."""
        drops = _drops(row, accuracy)
        return Drop(drops.drop, drops.bounds.at(confidence)[1])

    def split_notes(self, budgets: Gate, count: int, metrics: Metrics) -> list[str]:
        """Whether the test split is too small for the budget even if every answer is the teacher's."""
        least = units_that_agree(budgets.max_drop, budgets.confidence, _IMAGES_LOST)
        return split_notes(budgets, self.title, count, least)

    def teacher_notes(self, budgets: Gate, metrics: Metrics) -> list[str]:
        """Whether the teacher's own mean IoU is under the floor, or no better than a constant answer."""
        return teacher_notes(budgets, self.name, self.title, metrics)

    def shipped_notes(self, budgets: Gate, accuracy: Accuracy) -> list[str]:
        """Whether the shipped model is no better than a constant answer, which a wide ``max_drop`` lets pass."""
        return shipped_notes(budgets, accuracy, _lower(accuracy, accuracy.shipped, budgets))


def _judge_floor(budgets: Gate, accuracy: Accuracy) -> GateResult:
    row, floor, constant = accuracy.row(accuracy.shipped), budgets.min_accuracy, accuracy.facts[CONSTANT]
    seen = judge_value(row.score, _own(row), accuracy.n, accuracy.title, floor, budgets.confidence)
    text = f"{accuracy.shipped}: {seen.explain()}"
    if floor <= constant:
        text += f"; always giving one answer reaches {100 * constant:.2f} %, so this floor shows little"
    if seen.verdict == "fail":
        text += "; train a better teacher, compress less, or lower gate.min_accuracy"
    return GateResult(
        gate="min_accuracy",
        metric=accuracy.metric,
        value=seen.value,
        bound=seen.upper if seen.verdict == "fail" else seen.lower,
        limit=floor,
        verdict=seen.verdict,
        text=text,
    )


def _lower(accuracy: Accuracy, model: str, budgets: Gate) -> float:
    """What the mean IoU of ``model`` is at least."""
    return _own(accuracy.row(model)).at(budgets.confidence)[0]


def _drops(row: Row, accuracy: Accuracy) -> Drops:
    bounds = _bounds(row, _DROP_LOWERS, _DROP_UPPERS)
    return Drops(accuracy.row(REFERENCE).score, row.score, accuracy.n, bounds)


def _own(row: Row) -> Bounds:
    return _bounds(row, _LOWERS, _UPPERS)


def _bounds(row: Row, lowers: str, uppers: str) -> Bounds:
    low, high = row.evidence[lowers], row.evidence[uppers]
    assert isinstance(low, tuple)
    assert isinstance(high, tuple)
    assert len(low) == len(high) == len(LEVELS)
    return Bounds(low, high)
