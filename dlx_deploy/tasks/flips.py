"""Answers that are others than the teacher's, in all and in each class: how many, and whether so many may be."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import msgspec

from dlx_deploy.config import Gate
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.runtime.statistics.flips import Flips, MaskFlips, judge_flips
from dlx_deploy.runtime.statistics.groups import Judged, judge_groups
from dlx_deploy.tasks.grouped import FLIPS, bounds_in
from dlx_deploy.tasks.paired_gates import counts
from dlx_deploy.tasks.verification import Accuracy, Row

__all__ = [
    "BETTER",
    "CHANGED",
    "COUNTED",
    "SLICES",
    "WORSE",
    "flips_of",
    "judge_classes",
    "judge_flipped",
    "refuse_counted",
]

CHANGED = "changed"
"""The evidence that is the number of answers that are others than the teacher's."""
WORSE, BETTER = "worse", "better"
"""Of masks: the numbers of images whose own mask is clearly so (``runtime.statistics.flips.MOVED``)."""
COUNTED = "counted"
"""Of masks: the number of images that have a pixel that counts."""
SLICES = "max_slice_drop"
"""The key of the budget of every slice."""


def judge_flipped(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Whether few enough answers of the shipped model are others than its teacher's (``runtime.statistics.flips``)."""
    row = accuracy.row(accuracy.shipped)
    flips = flips_of(row, accuracy.n)
    result = partial(GateResult, gate="flips", metric="changed_answers", limit=budgets.max_flips)
    if flips is None:
        text = "this task keeps no answers, so it is not known how many changed; set gate.max_flips = 0"
        return result(value=None, bound=None, verdict="undecided", text=text)
    seen = judge_flips(flips, budgets.max_flips, budgets.confidence, bounds_in(row, FLIPS))
    text = f"{accuracy.shipped}: {seen.explain()}"
    if seen.verdict == "fail":
        text += "; distill longer, compress less, or raise gate.max_flips"
    bound = seen.lower if seen.verdict == "fail" else seen.upper
    return result(value=flips.share, bound=bound, verdict=seen.verdict, text=text)


def judge_classes(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Whether each class of the shipped model keeps to its budget (``runtime.statistics.groups``)."""
    result = partial(
        GateResult, gate="class_drop", metric=f"class_{accuracy.metric}_drop", limit=budgets.max_class_drop
    )
    classes = _classes_of(accuracy)
    if not classes:
        text = "this task keeps no answers by class, so their drops are not known; set gate.max_class_drop = 0"
        return result(value=None, bound=None, verdict="undecided", text=text)
    limits = [budgets.max_class_drop] * len(classes)
    bounds = () if isinstance(accuracy.class_bounds, msgspec.UnsetType) else accuracy.class_bounds
    seen = judge_groups(classes, limits, "classes", budgets.confidence, bounds)
    text, worst = f"{accuracy.shipped}: {seen.explain()}", seen.cause
    if seen.verdict != "pass":
        text += "; to improve: more samples of these classes, compress less, or raise gate.max_class_drop"
    bound = worst.lower if seen.verdict == "fail" else max(one.upper for one in seen.groups)
    return result(value=worst.group.drop, bound=bound, verdict=seen.verdict, text=text)


def _classes_of(accuracy: Accuracy) -> tuple[Judged, ...]:
    for kept in (accuracy.classes, accuracy.class_scores):
        if not isinstance(kept, msgspec.UnsetType):
            return kept
    return ()


def flips_of(row: Row, samples: int) -> Flips | None:
    """How many answers, or masks, changed; ``None`` where the statistic does not say what was answered."""
    if WORSE in row.evidence:
        worse, better = int(row.number(WORSE)), int(row.number(BETTER))
        counted = int(row.number(COUNTED)) if COUNTED in row.evidence else samples
        return MaskFlips(worse, better, worse + better, counted)
    changed = row.evidence.get(CHANGED)
    return Flips(*counts(row), changed, samples) if isinstance(changed, int) else None


def refuse_counted(budgets: Gate, title: str, but: Collection[str] = ()) -> None:
    """Nothing, unless there is a budget of changed answers, of classes or of slices, which those judged by
    ``title`` cannot have, ``but`` for those of these keys (``SLICES``: of ``gate.slices`` too).

    Raises:
        ConfigError: there is.
    """
    for key in ("max_flips", "max_class_drop", SLICES):
        if key not in but and (budget := getattr(budgets, key)):
            raise ConfigError(
                f"gate.{key} is {budget:g}; rule: with answers that are one class each, and here they are judged by "
                f"{title}; set it to 0"
            )
    if SLICES not in but and any(budgets.slices.values()):
        raise ConfigError(
            f"gate.slices has {next(iter(budgets.slices))!r}; rule: with answers that are one class each, and here "
            f"they are judged by {title}; leave it out"
        )
