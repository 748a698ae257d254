"""Answers that are others than the teacher's: how many, and whether so many may be. Pure functions."""

from __future__ import annotations

from functools import partial

from dlx_deploy.config import Gate
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.runtime.statistics.flips import Flips, judge_flips
from dlx_deploy.tasks.paired_gates import counts
from dlx_deploy.tasks.verification import Accuracy, Row

__all__ = ["CHANGED", "flips_of", "judge_flipped", "refuse_flips"]

CHANGED = "changed"
"""The evidence that is the number of answers that are others than the teacher's."""


def judge_flipped(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Whether few enough answers of the shipped model are others than its teacher's (``runtime.statistics.flips``)."""
    flips = flips_of(accuracy.row(accuracy.shipped), accuracy.n)
    result = partial(GateResult, gate="flips", metric="changed_answers", limit=budgets.max_flips)
    if flips is None:
        text = "this task keeps no answers, so it is not known how many changed; set gate.max_flips = 0"
        return result(value=None, bound=None, verdict="undecided", text=text)
    seen = judge_flips(flips, budgets.max_flips, budgets.confidence)
    text = f"{accuracy.shipped}: {seen.explain()}"
    if seen.verdict == "fail":
        text += "; distill longer, compress less, or raise gate.max_flips"
    bound = seen.lower if seen.verdict == "fail" else seen.upper
    return result(value=flips.share, bound=bound, verdict=seen.verdict, text=text)


def flips_of(row: Row, samples: int) -> Flips | None:
    """How many answers changed; ``None`` where the statistic does not say what was answered."""
    changed = row.evidence.get(CHANGED)
    return Flips(*counts(row), changed, samples) if isinstance(changed, int) else None


def refuse_flips(budgets: Gate, title: str) -> None:
    """Nothing, unless there is a budget of changed answers, which those that are judged by ``title`` cannot have.

    Raises:
        ConfigError: there is.
    """
    if budgets.max_flips:
        raise ConfigError(
            f"gate.max_flips is {budgets.max_flips:g}; rule: with answers that are one class each, and here they are "
            f"judged by {title}; set it to 0"
        )
