"""Answers that have a score each: their mean, its drop beside the teacher's, and what a constant answer reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.runtime.statistics.means import DROP_RANGE, Mean, fewest_samples_alike, mean_at_most
from dlx_deploy.runtime.words import percent
from dlx_deploy.tasks.flips import refuse_counted
from dlx_deploy.tasks.gates import CONSTANT, constant_gate, drop_gate, shipped_notes, split_notes, teacher_notes
from dlx_deploy.tasks.verification import REFERENCE, Accuracy, Drop, Evidence, Row

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Arrays

__all__ = ["MeanScores"]


@dataclass(frozen=True)
class MeanScores:
    """The statistic is one array, float64[n], 0..1: a score for each sample, higher is better.

    ``constant``: of a split's targets, the mean score of the best answer that is always the same. Evidence: the mean
    and the variance of the drop, and the variance of a model's own scores.
    """

    name: str
    title: str
    target: str
    constant: Callable[[Arrays], float]

    def check(self, budgets: Gate) -> None:
        """There is a bound at every confidence; nothing is counted by class."""
        refuse_counted(budgets, self.title)

    def score(self, statistic: Arrays) -> float:
        """The mean."""
        (scores,) = statistic.values()
        return float(scores.mean())

    def evidence(self, teacher: Arrays, model: Arrays) -> Evidence:
        """Enough for any budget and confidence."""
        (by_teacher,), (scores,) = teacher.values(), model.values()
        drop, own = Mean.of(by_teacher - scores, DROP_RANGE), Mean.of(scores)
        return {"drop": drop.value, "drop_variance": drop.variance, "variance": own.variance}

    def facts(self, targets: Arrays) -> dict[str, float]:
        """What a constant answer scores."""
        return {CONSTANT: self.constant(targets)}

    def judge(self, budgets: Gate, accuracy: Accuracy) -> list[GateResult]:
        """The drop always; a floor where a budget is set, and a constant answer where no floor says more."""
        seen = mean_at_most(
            _drop(accuracy.row(accuracy.shipped), accuracy), budgets.max_drop, f"{self.title} drop", budgets.confidence
        )
        bound = seen.lower if seen.verdict == "fail" else seen.upper
        results = [drop_gate(budgets, accuracy, seen.verdict, Drop(seen.value, bound), seen.explain())]
        if budgets.min_accuracy:
            results.append(self._judge_floor(budgets, accuracy))
        elif not budgets.allow_chance:
            results.append(constant_gate(budgets, accuracy, _lower(accuracy.row(REFERENCE), accuracy, budgets)))
        return results

    def drop(self, row: Row, accuracy: Accuracy, confidence: float) -> Drop:
        """The mean drop and its bound."""
        drop = _drop(row, accuracy)
        return Drop(drop.value, drop.value + drop.reach(confidence))

    def split_notes(self, budgets: Gate, count: int, metrics: Metrics) -> list[str]:
        """Whether the test split is too small for the budget even if every score is the teacher's."""
        return split_notes(budgets, self.title, count, fewest_samples_alike(budgets.max_drop, budgets.confidence))

    def teacher_notes(self, budgets: Gate, metrics: Metrics) -> list[str]:
        """Whether the teacher's own score is under the floor, or no better than a constant answer's."""
        return teacher_notes(budgets, self.name, self.title, metrics)

    def shipped_notes(self, budgets: Gate, accuracy: Accuracy) -> list[str]:
        """Whether the shipped model is no better than a constant answer, which a wide ``max_drop`` lets pass."""
        return shipped_notes(budgets, accuracy, _lower(accuracy.row(accuracy.shipped), accuracy, budgets))

    def _judge_floor(self, budgets: Gate, accuracy: Accuracy) -> GateResult:
        row, constant = accuracy.row(accuracy.shipped), accuracy.facts[CONSTANT]
        limit = 1 - budgets.min_accuracy
        seen = mean_at_most(_shortfall(row, accuracy), limit, f"1 - {self.title}", budgets.confidence)
        text = seen.explain()
        if budgets.min_accuracy <= constant:
            text += f"; always giving one answer reaches {percent(constant)}, so this floor shows little"
        if seen.verdict != "pass":
            text += "; train a better teacher, compress less, or lower gate.min_accuracy"
        return GateResult(
            gate="min_accuracy",
            metric=f"{self.name}_shortfall",
            value=seen.value,
            bound=seen.lower if seen.verdict == "fail" else seen.upper,
            limit=seen.limit,
            verdict=seen.verdict,
            text=text,
        )


def _drop(row: Row, accuracy: Accuracy) -> Mean:
    return Mean(row.number("drop"), row.number("drop_variance"), accuracy.n, DROP_RANGE)


def _shortfall(row: Row, accuracy: Accuracy) -> Mean:
    return Mean(1 - row.score, row.number("variance"), accuracy.n)


def _lower(row: Row, accuracy: Accuracy, budgets: Gate) -> float:
    """What the model's score is at least."""
    return row.score - _shortfall(row, accuracy).reach(budgets.confidence)
