"""The gates of answers that are right or wrong: pure functions of what verification kept, and of a budget."""

from __future__ import annotations

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.runtime.statistics.drops import non_inferiority
from dlx_deploy.runtime.statistics.floors import accuracy_floor
from dlx_deploy.runtime.words import percent
from dlx_deploy.tasks.gates import drop_gate
from dlx_deploy.tasks.verification import REFERENCE, Accuracy, Drop, Row

__all__ = ["LARGEST", "counts", "judge_accuracy", "judge_chance", "judge_floor", "right"]

LARGEST = "largest_class"
"""The fact that is the share of the most frequent label."""


def judge_accuracy(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Non-inferiority of the shipped model to its teacher (Tango's score bound, see ``runtime.statistics.drops``)."""
    b, c = counts(accuracy.row(accuracy.shipped))
    seen = non_inferiority(b, c, accuracy.n, budgets.max_drop, budgets.confidence)
    return drop_gate(budgets, accuracy, seen.verdict, Drop(seen.drop, seen.upper), seen.explain())


def judge_floor(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Whether the shipped model is right often enough (Clopper and Pearson, see ``runtime.statistics.floors``)."""
    share = accuracy.facts.get(LARGEST, 0.0)
    floor = accuracy_floor(right(accuracy, accuracy.shipped), accuracy.n, budgets.min_accuracy, budgets.confidence)
    text = f"{accuracy.shipped}: {floor.explain()}"
    if budgets.min_accuracy <= share:
        text += f"; always answering the largest class would be right on {percent(share)}, so this floor shows little"
    if floor.verdict == "fail":
        text += "; train a better teacher, compress less, or lower gate.min_accuracy"
    return GateResult(
        gate="min_accuracy",
        metric=accuracy.metric,
        value=floor.accuracy,
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
    clearly = floor.lower > share
    word = "clearly" if clearly else "not clearly"
    text = (
        f"the teacher is right on {percent(floor.accuracy)} of {n} test samples, "
        f"at least {percent(floor.lower)} at {budgets.confidence:.4g} confidence; "
        f"{word} better than always answering the largest class, which is right on {percent(share)}"
    )
    if not clearly:
        if floor.samples_needed and share < 1:
            text += f" (about {floor.samples_needed} test samples could show it)"
        text += "; train the teacher until it is, or set gate.allow_chance = true to ship it all the same"
    return GateResult(
        gate="chance",
        metric=f"{REFERENCE}_{accuracy.metric}",
        value=floor.accuracy,
        bound=floor.lower,
        limit=share,
        verdict="pass" if clearly else "fail",
        text=text,
    )


def counts(row: Row) -> tuple[int, int]:
    """``(b, c)``: samples that only the teacher has right, and that only the model of ``row`` has."""
    b, c = row.evidence["b"], row.evidence["c"]
    assert isinstance(b, int)
    assert isinstance(c, int)
    return b, c


def right(accuracy: Accuracy, model: str) -> int:
    """How many samples ``model`` has right."""
    return round(accuracy.row(model).score * accuracy.n)
