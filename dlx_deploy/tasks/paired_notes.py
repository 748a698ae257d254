"""What must not go unseen of answers that are right or wrong, before a gate says it or although none does."""

from __future__ import annotations

import math

from dlx_deploy.config import Gate
from dlx_deploy.runtime.statistics.drops import drop_upper_bound
from dlx_deploy.runtime.statistics.floors import accuracy_lower_bound, accuracy_upper_bound, fewest_samples
from dlx_deploy.runtime.statistics.search import fewest
from dlx_deploy.runtime.words import percent
from dlx_deploy.tasks.paired_gates import LARGEST, right_at_least
from dlx_deploy.tasks.verification import Accuracy

__all__ = ["fewest_samples_for", "shipped_notes", "split_notes", "teacher_notes"]

FLIPS = 0.02
"""The share of answers that a good student changes, for better and worse alike; on the digits it is 2 to 4 %."""
LEAST_DROP = 1e-9
"""Under this budget no test split is large enough: it is none."""


def split_notes(budgets: Gate, n: int, classes: int) -> list[str]:
    """Each budget that a test split of ``n`` samples of ``classes`` is too small for, whatever is built from it."""
    notes = _drop_notes(budgets, n)
    level = f"at gate.confidence {budgets.confidence:g}"
    if budgets.min_accuracy:
        least = fewest_samples(budgets.min_accuracy, budgets.confidence)
        if n < least:
            notes.append(
                f"the test split has {n} samples; gate.min_accuracy {budgets.min_accuracy:g} {level} takes at least "
                f"{least}, all of them right: add test samples or lower the floor"
            )
    elif not budgets.allow_chance:
        least = fewest_samples(1 / classes, budgets.confidence)
        if n < least:
            notes.append(
                f"the test split has {n} samples of {classes} classes; that a teacher is better than always answering "
                f"the largest class takes at least {least} {level}: add test samples, or set gate.allow_chance = true"
            )
    return notes


def teacher_notes(budgets: Gate, score: float, largest: float, n: int) -> list[str]:
    """Whether a teacher that is right on the share ``score`` of ``n`` validation samples will hardly pass.

    ``largest``: the share of the most frequent class.
    """
    if math.isnan(score):
        return []
    hits, floor = round(score * n), budgets.min_accuracy
    seen = f"the teacher is right on {percent(score)} of {n} validation samples"
    if floor and accuracy_upper_bound(hits, n, budgets.confidence) < floor:
        return [f"{seen}, under gate.min_accuracy {floor:g}: what is built from it will hardly pass; train it further"]
    if not floor and not budgets.allow_chance and accuracy_lower_bound(hits, n, budgets.confidence) <= largest:
        return [
            f"{seen}, not clearly more than always answering the largest class ({percent(largest)}): if the test "
            "split says the same, nothing will be packaged; train it further, or set gate.allow_chance = true"
        ]
    return []


def shipped_notes(budgets: Gate, accuracy: Accuracy) -> list[str]:
    """A wide ``max_drop`` lets a network pass that fell to chance level beside a good teacher."""
    n, largest = accuracy.n, accuracy.facts.get(LARGEST)
    if largest is None or budgets.allow_chance or budgets.min_accuracy:
        return []
    if right_at_least(accuracy, accuracy.shipped, budgets.confidence) > largest:
        return []
    share = percent(accuracy.row(accuracy.shipped).score)
    return [
        f"{accuracy.shipped}, which the gate lets into the package if it passes, is right on {share} of {n} "
        f"test samples, not clearly more than always answering the largest class ({percent(largest)}): set "
        "gate.min_accuracy, or lower gate.max_drop"
    ]


def fewest_samples_for(budgets: Gate, flips: float) -> int | None:
    """The samples that show no drop beyond the budget where there is none and this share of answers changes.

    ``None``: there is no such number.
    """
    if budgets.max_drop < LEAST_DROP:
        return None

    def enough(n: int) -> bool:
        return drop_upper_bound(n * flips / 2, n * flips / 2, n, budgets.confidence) <= budgets.max_drop

    return fewest(enough, above=0)


def _drop_notes(budgets: Gate, n: int) -> list[str]:
    least, usual = fewest_samples_for(budgets, 0), fewest_samples_for(budgets, FLIPS)
    rule = f"gate.max_drop {budgets.max_drop:g} at gate.confidence {budgets.confidence:g}"
    if least is None:
        return [f"{rule} can only be shown of a network that is clearly better than its teacher; allow a drop"]
    if n >= (usual or least):
        return []
    flips = f"{usual} if {100 * FLIPS:g} % of the answers change"
    if n < least:
        return [
            f"the test split has {n} samples, too few to decide: {rule} takes at least {least} if not one answer "
            f"differs from the teacher's, and {flips}; add test samples, or raise the budget"
        ]
    return [
        f"the test split has {n} samples, which may be too few to decide: {rule} takes {least} if not one answer "
        f"differs from the teacher's, and {flips}"
    ]
