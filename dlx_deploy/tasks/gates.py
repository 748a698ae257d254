"""What gates and notes of several kinds of scores have in common: values with their texts, and a constant answer beside
which a score must mean something. Pure functions; nothing heavy is loaded."""

from __future__ import annotations

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.gate import GateResult, Verdict
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.runtime.words import percent
from dlx_deploy.tasks.verification import REFERENCE, Accuracy, Drop

__all__ = ["CONSTANT", "constant_gate", "drop_gate", "shipped_notes", "split_notes", "teacher_notes"]

CONSTANT = "constant"
"""The fact that is the score of the best answer that is always the same."""


def drop_gate(budgets: Gate, accuracy: Accuracy, verdict: Verdict, drop: Drop, text: str) -> GateResult:
    """The gate of the shipped model's drop; what would make it pass is added to the ``text`` of one that does not."""
    if verdict != "pass":
        text += "; to improve: train and distill longer, prune less, or raise gate.max_drop"
    return GateResult(
        gate="accuracy",
        metric=f"{accuracy.metric}_drop",
        value=drop.value,
        bound=drop.upper,
        limit=budgets.max_drop,
        verdict=verdict,
        text=text,
    )


def constant_gate(budgets: Gate, accuracy: Accuracy, lower: float) -> GateResult:
    """Whether the teacher, whose score is at least ``lower``, is clearly better than a constant answer.

    A drop against a teacher that knows nothing means nothing: one that may know nothing is refused.
    """
    row, constant = accuracy.row(REFERENCE), accuracy.facts[CONSTANT]
    clearly = lower > constant
    text = (
        f"the teacher's {accuracy.title} is {percent(row.score)} on {accuracy.n} test samples, at least "
        f"{percent(lower)} at {budgets.confidence:.4g} confidence; {'' if clearly else 'not '}clearly better than "
        f"always giving one answer, which reaches {percent(constant)}"
    )
    if not clearly:
        text += "; train the teacher until it is, or set gate.allow_chance = true to ship it all the same"
    return GateResult(
        gate="chance",
        metric=f"{REFERENCE}_{accuracy.metric}",
        value=row.score,
        bound=lower,
        limit=constant,
        verdict="pass" if clearly else "fail",
        text=text,
    )


def split_notes(budgets: Gate, title: str, count: int, least: int | None) -> list[str]:
    """Whether a test split of ``count`` samples is too small even if every answer is the teacher's, which takes
    ``least`` (``None``: no number of them is enough)."""
    rule = f"gate.max_drop {budgets.max_drop:g} of {title} at gate.confidence {budgets.confidence:g}"
    if least is None:
        return [f"{rule} can only be shown of a network that is clearly better than its teacher; allow a drop"]
    if count >= least:
        return []
    return [
        f"the test split has {count} samples, too few to decide: {rule} takes about {least} if every answer is the "
        "teacher's; add test samples, or raise the budget"
    ]


def teacher_notes(budgets: Gate, name: str, title: str, metrics: Metrics) -> list[str]:
    """Whether the teacher's score on validation is under the floor, or no better than a constant answer's."""
    score, constant = metrics.get(f"validation_{name}"), metrics.get(f"validation_{CONSTANT}")
    if score is None or constant is None:
        return []
    seen = f"the teacher's {title} is {percent(score)} on {metrics['validation_samples']:.0f} validation samples"
    if score < budgets.min_accuracy:
        return [
            f"{seen}, under gate.min_accuracy {budgets.min_accuracy:g}: what is built from it will hardly pass; train "
            "it further"
        ]
    if score <= constant and not budgets.min_accuracy and not budgets.allow_chance:
        return [
            f"{seen}, no better than always giving one answer ({percent(constant)}): if the test split says the "
            "same, nothing will be packaged; train it further, or set gate.allow_chance = true"
        ]
    return []


def shipped_notes(budgets: Gate, accuracy: Accuracy, lower: float) -> list[str]:
    """Whether the shipped model, whose score is at least ``lower``, is no better than a constant answer: a wide
    ``max_drop`` lets it pass."""
    row, constant = accuracy.row(accuracy.shipped), accuracy.facts[CONSTANT]
    if budgets.min_accuracy or budgets.allow_chance or lower > constant:
        return []
    return [
        f"{accuracy.shipped}, which the gate lets into the package if it passes, has {accuracy.title} "
        f"{percent(row.score)}, not clearly more than always giving one answer ({percent(constant)}): set "
        "gate.min_accuracy, or lower gate.max_drop"
    ]
