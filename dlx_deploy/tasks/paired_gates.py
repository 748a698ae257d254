"""The gates of answers that are right or wrong: pure functions of what verification kept, and of a budget."""

from __future__ import annotations

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.runtime.statistics.drops import non_inferiority
from dlx_deploy.runtime.statistics.floors import Floor, accuracy_floor, accuracy_lower_bound
from dlx_deploy.runtime.statistics.resampled import Drops, FloorVerdict, judge_drops, judge_value
from dlx_deploy.runtime.words import percent
from dlx_deploy.tasks.gates import drop_gate
from dlx_deploy.tasks.grouped import bounds_in, drawn_in
from dlx_deploy.tasks.verification import REFERENCE, Accuracy, Drop, Row

__all__ = [
    "LARGEST",
    "counts",
    "grouped_drops_of",
    "judge_accuracy",
    "judge_chance",
    "judge_floor",
    "right",
    "right_at_least",
]

LARGEST = "largest_class"
"""The fact that is the share of the most frequent label."""


def judge_accuracy(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Non-inferiority of the shipped model to its teacher: Tango's score bound (``runtime.statistics.drops``), or that
    of whole groups where samples come in some (``runtime.statistics.clustered``)."""
    row = accuracy.row(accuracy.shipped)
    if drops := grouped_drops_of(row, accuracy):
        by = judge_drops(drops, "accuracy", budgets.max_drop, budgets.confidence)
        return drop_gate(budgets, accuracy, by.verdict, Drop(by.drop, by.upper), by.explain())
    b, c = counts(row)
    seen = non_inferiority(b, c, accuracy.n, budgets.max_drop, budgets.confidence)
    return drop_gate(budgets, accuracy, seen.verdict, Drop(seen.drop, seen.upper), seen.explain())


def judge_floor(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Whether the shipped model is right often enough (Clopper and Pearson, see ``runtime.statistics.floors``)."""
    share = accuracy.facts.get(LARGEST, 0.0)
    floor = _floor(budgets, accuracy)
    text = f"{accuracy.shipped}: {floor.explain()}"
    if budgets.min_accuracy <= share:
        text += f"; always answering the largest class would be right on {percent(share)}, so this floor shows little"
    if floor.verdict == "fail":
        text += "; train a better teacher, compress less, or lower gate.min_accuracy"
    return GateResult(
        gate="min_accuracy",
        metric=accuracy.metric,
        value=accuracy.row(accuracy.shipped).score,
        bound=floor.upper if floor.verdict == "fail" else floor.lower,
        limit=budgets.min_accuracy,
        verdict=floor.verdict,
        text=text,
    )


def judge_chance(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Whether the teacher is clearly better than always answering the largest class: nothing in between is undecided.

    A drop against a teacher at chance level means nothing, so what cannot be told from chance is refused.
    """
    n, share = accuracy.n, accuracy.facts[LARGEST]
    floor = accuracy_floor(right(accuracy, REFERENCE), n, min(share, 1 - 0.5 / n), budgets.confidence)
    lower = right_at_least(accuracy, REFERENCE, budgets.confidence)
    clearly = lower > share
    word = "clearly" if clearly else "not clearly"
    text = (
        f"the teacher is right on {percent(floor.accuracy)} of {n} test samples, "
        f"at least {percent(lower)} at {budgets.confidence:.4g} confidence; "
        f"{word} better than always answering the largest class, which is right on {percent(share)}"
    )
    if not clearly:
        if floor.samples_needed and share < 1 and not bounds_in(accuracy.row(REFERENCE), ""):
            text += f" (about {floor.samples_needed} test samples could show it)"
        text += "; train the teacher until it is, or set gate.allow_chance = true to ship it all the same"
    return GateResult(
        gate="chance",
        metric=f"{REFERENCE}_{accuracy.metric}",
        value=floor.accuracy,
        bound=lower,
        limit=share,
        verdict="pass" if clearly else "fail",
        text=text,
    )


def _floor(budgets: Gate, accuracy: Accuracy) -> Floor | FloorVerdict:
    row = accuracy.row(accuracy.shipped)
    if bounds := bounds_in(row, ""):
        drawn = drawn_in(row, accuracy.n)
        return judge_value(row.score, bounds, drawn, "accuracy", budgets.min_accuracy, budgets.confidence)
    return accuracy_floor(right(accuracy, accuracy.shipped), accuracy.n, budgets.min_accuracy, budgets.confidence)


def grouped_drops_of(row: Row, accuracy: Accuracy) -> Drops | None:
    """How far ``row`` drops, where whole groups were drawn."""
    bounds = bounds_in(row, "drop_")
    if bounds is None:
        return None
    drawn = drawn_in(row, accuracy.n)
    return Drops(accuracy.row(REFERENCE).score, row.score, drawn.count, bounds, drawn.noun)


def right_at_least(accuracy: Accuracy, model: str, confidence: float) -> float:
    """Of the samples that ``model`` has right, the share that is shown."""
    bounds = bounds_in(accuracy.row(model), "")
    return bounds.at(confidence)[0] if bounds else accuracy_lower_bound(right(accuracy, model), accuracy.n, confidence)


def counts(row: Row) -> tuple[int, int]:
    """``(b, c)``: samples that only the teacher has right, and that only the model of ``row`` has."""
    b, c = row.evidence["b"], row.evidence["c"]
    assert isinstance(b, int)
    assert isinstance(c, int)
    return b, c


def right(accuracy: Accuracy, model: str) -> int:
    """How many samples ``model`` has right."""
    return round(accuracy.row(model).score * accuracy.n)
