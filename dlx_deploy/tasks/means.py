"""Answers that have a score each: their mean, its drop beside the teacher's, and what a constant answer reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.runtime.statistics.means import DROP_RANGE, Mean, MeanVerdict, fewest_samples_alike, mean_at_most
from dlx_deploy.tasks.verification import REFERENCE, Accuracy, Drop, Evidence, Row

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Arrays

__all__ = ["CONSTANT", "MeanScores"]

CONSTANT = "constant"
"""The fact that is the mean score of the best answer that is always the same."""


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
        shipped = accuracy.row(accuracy.shipped)
        drop = mean_at_most(_drop(shipped, accuracy), budgets.max_drop, f"{self.title} drop", budgets.confidence)
        remedy = "to improve: train and distill longer, prune less, or raise gate.max_drop"
        results = [_gate("accuracy", f"{self.name}_drop", drop, remedy)]
        if budgets.min_accuracy:
            results.append(self._judge_floor(budgets, accuracy))
        elif not budgets.allow_chance:
            results.append(self._judge_chance(budgets, accuracy))
        return results

    def drop(self, row: Row, accuracy: Accuracy, confidence: float) -> Drop:
        """The mean drop and its bound."""
        drop = _drop(row, accuracy)
        return Drop(drop.value, drop.value + drop.reach(confidence))

    def split_notes(self, budgets: Gate, count: int, metrics: Metrics) -> list[str]:
        """Whether the test split is too small for the budget even if every score is the teacher's."""
        least = fewest_samples_alike(budgets.max_drop, budgets.confidence)
        rule = f"gate.max_drop {budgets.max_drop:g} of {self.title} at gate.confidence {budgets.confidence:g}"
        if least is None:
            return [f"{rule} can only be shown of a network that is clearly better than its teacher; allow a drop"]
        if count >= least:
            return []
        return [
            f"the test split has {count} samples, too few to decide: {rule} takes at least {least} if every score is "
            "the teacher's; add test samples, or raise the budget"
        ]

    def teacher_notes(self, budgets: Gate, metrics: Metrics) -> list[str]:
        """Whether the teacher's own score is under the floor, or no better than a constant answer's."""
        score, constant = metrics.get(f"validation_{self.name}"), metrics.get(f"validation_{CONSTANT}")
        if score is None or constant is None:
            return []
        seen = (
            f"the teacher's {self.title} is {_percent(score)} on {metrics['validation_samples']:.0f} validation samples"
        )
        if score < budgets.min_accuracy:
            return [
                f"{seen}, under gate.min_accuracy {budgets.min_accuracy:g}: what is built from it will hardly pass; "
                "train it further"
            ]
        if score <= constant and not budgets.min_accuracy and not budgets.allow_chance:
            return [
                f"{seen}, no better than always giving one answer ({_percent(constant)}): if the test split says the "
                "same, nothing will be packaged; train it further, or set gate.allow_chance = true"
            ]
        return []

    def shipped_notes(self, budgets: Gate, accuracy: Accuracy) -> list[str]:
        """Whether the shipped model is no better than a constant answer, which a wide ``max_drop`` lets pass."""
        row, constant = accuracy.row(accuracy.shipped), accuracy.facts[CONSTANT]
        own = _shortfall(row, accuracy)
        if budgets.min_accuracy or budgets.allow_chance or own.value + own.reach(budgets.confidence) < 1 - constant:
            return []
        return [
            f"{accuracy.shipped}, which the gate lets into the package if it passes, has a {self.title} of "
            f"{_percent(row.score)}, not clearly more than always giving one answer ({_percent(constant)}): set "
            "gate.min_accuracy, or lower gate.max_drop"
        ]

    def _judge_floor(self, budgets: Gate, accuracy: Accuracy) -> GateResult:
        row, constant = accuracy.row(accuracy.shipped), accuracy.facts[CONSTANT]
        limit = 1 - budgets.min_accuracy
        seen = mean_at_most(_shortfall(row, accuracy), limit, f"1 - {self.title}", budgets.confidence)
        little = f"; always giving one answer reaches {_percent(constant)}, so this floor shows little"
        remedy = "train a better teacher, compress less, or lower gate.min_accuracy"
        hint = little if budgets.min_accuracy <= constant else ""
        return _gate("min_accuracy", f"{self.name}_shortfall", seen, remedy, hint)

    def _judge_chance(self, budgets: Gate, accuracy: Accuracy) -> GateResult:
        """A drop against a teacher that knows nothing means nothing: one that may know nothing is refused."""
        row, constant = accuracy.row(REFERENCE), accuracy.facts[CONSTANT]
        lower = row.score - _shortfall(row, accuracy).reach(budgets.confidence)
        clearly = lower > constant
        text = (
            f"the teacher's {self.title} is {_percent(row.score)} on {accuracy.n} test samples, at least "
            f"{_percent(lower)} at {budgets.confidence:.4g} confidence; {'' if clearly else 'not '}clearly better than "
            f"always giving one answer, which reaches {_percent(constant)}"
        )
        if not clearly:
            text += "; train the teacher until it is, or set gate.allow_chance = true to ship it all the same"
        return GateResult(
            gate="chance",
            metric=f"{REFERENCE}_{self.name}",
            value=row.score,
            bound=lower,
            limit=constant,
            verdict="pass" if clearly else "fail",
            text=text,
        )


def _drop(row: Row, accuracy: Accuracy) -> Mean:
    return Mean(row.number("drop"), row.number("drop_variance"), accuracy.n, DROP_RANGE)


def _shortfall(row: Row, accuracy: Accuracy) -> Mean:
    return Mean(1 - row.score, row.number("variance"), accuracy.n)


def _gate(gate: str, metric: str, seen: MeanVerdict, remedy: str, hint: str = "") -> GateResult:
    text = seen.explain() + hint
    return GateResult(
        gate=gate,
        metric=metric,
        value=seen.value,
        bound=seen.lower if seen.verdict == "fail" else seen.upper,
        limit=seen.limit,
        verdict=seen.verdict,
        text=text if seen.verdict == "pass" else f"{text}; {remedy}",
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"
