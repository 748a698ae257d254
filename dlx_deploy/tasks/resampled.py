"""Metrics that are no mean over samples: their bounds by a paired bootstrap, and the gates that rest on these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from dlx_deploy.tasks.flips import SLICES, judge_classes, judge_flipped, refuse_counted
from dlx_deploy.tasks.gates import CONSTANT, constant_gate, drop_gate, shipped_notes, split_notes, teacher_notes
from dlx_deploy.tasks.grouped import counted_groups, drawn_in
from dlx_deploy.tasks.slices import asked_slices, judge_slices
from dlx_deploy.tasks.verification import REFERENCE, Accuracy, Drop, Evidence, Row

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.runtime.statistics.scored import Scored
    from dlx_deploy.runtime.tasks.slice_scores import SliceMetric

__all__ = ["ResampledComparison"]

_LOWERS, _UPPERS, _DROP_LOWERS, _DROP_UPPERS = "lowers", "uppers", "drop_lowers", "drop_uppers"


@dataclass(frozen=True)
class ResampledComparison:
    """What all such comparisons share; a metric has its own ``score``, ``bounds``, ``drops``, ``facts`` and
    ``in_slices``.

    Evidence: bounds of a model's score and of its drop, at the confidences of ``resampled.LEVELS``. Facts:
    ``constant``, the score (0..1) of the best answer that is always the same. ``lost``: so much of a unit a unit costs
    on which one model alone is right. ``counted``: of the budgets of single answers and classes those that it judges,
    by their keys.
    """

    name: str
    title: str
    target: str
    lost: float = 1.0
    counted: frozenset[str] = frozenset()

    def score(self, statistic: Arrays) -> float:
        """0..1, higher is better."""
        raise NotImplementedError

    def bounds(self, statistic: Arrays) -> Bounds:
        """Of a model's score."""
        raise NotImplementedError

    def drops(self, teacher: Arrays, model: Arrays) -> Drops:
        """Of the score, beside the teacher's."""
        raise NotImplementedError

    def facts(self, targets: Arrays) -> dict[str, float]:
        """The score of the best constant answer."""
        raise NotImplementedError

    @property
    def in_slices(self) -> SliceMetric:
        """The score as it is told of some of the samples."""
        raise NotImplementedError

    def slice_scores(
        self, teacher: Arrays, model: Arrays, columns: Mapping[str, Sequence[str]], judged: bool
    ) -> tuple[tuple[Scored, ...], tuple[Bounds, ...]]:
        """The score of each slice of both models, and bounds of its drop if slices are ``judged``."""
        from dlx_deploy.runtime.tasks.slice_scores import score_slices

        scores, bounds = score_slices(self.in_slices, (teacher, model), columns, lambda name: judged)
        return scores, bounds if judged else ()

    def check(self, budgets: Gate) -> None:
        """Resampling tells no more than the highest of ``LEVELS``; of what counts, those ``counted``."""
        if budgets.confidence > LEVELS[-1]:
            raise ConfigError(
                f"gate.confidence is {budgets.confidence:g}; {self.title} is judged by resampling samples, which tells "
                f"no bound above {LEVELS[-1]:g}: set that or less"
            )
        refuse_counted(budgets, self.title, self.counted | {SLICES})

    def evidence(self, teacher: Arrays, model: Arrays) -> Evidence:
        """Bounds of the score and of its drop."""
        drops, own = self.drops(teacher, model).bounds, self.bounds(model)
        found = counted_groups(model)
        found |= {_LOWERS: own.lowers, _UPPERS: own.uppers, _DROP_LOWERS: drops.lowers, _DROP_UPPERS: drops.uppers}
        return found

    def judge(self, budgets: Gate, accuracy: Accuracy) -> list[GateResult]:
        """The drop always; a floor where a budget is set, and a constant answer where no floor says more."""
        drops = _drops(accuracy.row(accuracy.shipped), accuracy)
        seen = judge_drops(drops, accuracy.title, budgets.max_drop, budgets.confidence)
        results = [drop_gate(budgets, accuracy, seen.verdict, Drop(seen.drop, seen.upper), seen.explain())]
        if budgets.min_accuracy:
            results.append(_judge_floor(budgets, accuracy))
        elif not budgets.allow_chance:
            results.append(constant_gate(budgets, accuracy, _lower(accuracy, REFERENCE, budgets)))
        if budgets.max_flips:
            results.append(judge_flipped(budgets, accuracy))
        if budgets.max_class_drop:
            results.append(judge_classes(budgets, accuracy))
        if asked_slices(budgets):
            results.append(judge_slices(budgets, accuracy))
        return results

    def drop(self, row: Row, accuracy: Accuracy, confidence: float) -> Drop:
        """The drop and its bound."""
        drops = _drops(row, accuracy)
        return Drop(drops.drop, drops.bounds.at(confidence)[1])

    def split_notes(self, budgets: Gate, count: int, metrics: Metrics) -> list[str]:
        """Whether the test split is too small for the budget even if every answer is the teacher's."""
        least = units_that_agree(budgets.max_drop, budgets.confidence, self.lost)
        return split_notes(budgets, self.title, count, least)

    def teacher_notes(self, budgets: Gate, metrics: Metrics) -> list[str]:
        """Whether the teacher's own score is under the floor, or no better than a constant answer."""
        return teacher_notes(budgets, self.name, self.title, metrics)

    def shipped_notes(self, budgets: Gate, accuracy: Accuracy) -> list[str]:
        """Whether the shipped model is no better than a constant answer, which a wide ``max_drop`` lets pass."""
        return shipped_notes(budgets, accuracy, _lower(accuracy, accuracy.shipped, budgets))


def _judge_floor(budgets: Gate, accuracy: Accuracy) -> GateResult:
    row, floor, constant = accuracy.row(accuracy.shipped), budgets.min_accuracy, accuracy.facts[CONSTANT]
    seen = judge_value(row.score, _own(row), drawn_in(row, accuracy.n), accuracy.title, floor, budgets.confidence)
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
    """What the score of ``model`` is at least."""
    return _own(accuracy.row(model)).at(budgets.confidence)[0]


def _drops(row: Row, accuracy: Accuracy) -> Drops:
    bounds = _bounds(row, _DROP_LOWERS, _DROP_UPPERS)
    drawn = drawn_in(row, accuracy.n)
    return Drops(accuracy.row(REFERENCE).score, row.score, drawn.count, bounds, drawn.noun)


def _own(row: Row) -> Bounds:
    return _bounds(row, _LOWERS, _UPPERS)


def _bounds(row: Row, lowers: str, uppers: str) -> Bounds:
    low, high = row.evidence[lowers], row.evidence[uppers]
    assert isinstance(low, tuple)
    assert isinstance(high, tuple)
    assert len(low) == len(high) == len(LEVELS)
    return Bounds(low, high)
