"""Budgets of slices of the test split (``data.slices``): which slice has which, and whether it keeps to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from dlx_deploy.config import Data, Gate
from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.runtime.statistics.floors import fewest_samples
from dlx_deploy.runtime.statistics.groups import judge_groups
from dlx_deploy.runtime.statistics.resampled import units_that_agree
from dlx_deploy.runtime.words import line
from dlx_deploy.tasks.verification import Accuracy, BySliceScore, Comparison

__all__ = ["asked_slices", "check_slices", "judge_slices", "refuse_unknown", "slice_notes"]

_NAMED = 3


def asked_slices(budgets: Gate) -> bool:
    """Whether a slice has a budget."""
    return bool(budgets.max_slice_drop) or any(budgets.slices.values())


def check_slices(data: Data, budgets: Gate) -> None:
    """Refuses budgets of slices that no data could have.

    Raises:
        ConfigError: names the key.
    """
    if budgets.max_slice_drop and not data.slices:
        raise ConfigError(
            f"gate.max_slice_drop is {budgets.max_slice_drop:g}, and data.slices is []; name the columns whose values "
            "are slices, or set it to 0"
        )
    for name in budgets.slices:
        column, sign, _ = name.partition("=")
        if not sign:
            raise ConfigError(f"gate.slices has {name!r}; rule: COLUMN=VALUE, of a column of data.slices")
        if column not in data.slices:
            hint = nearest(column, data.slices) if data.slices else "data.slices is []"
            raise ConfigError(f"gate.slices has {name!r}, and data.slices no column {column!r}; {hint}")


def refuse_unknown(budgets: Gate, names: Sequence[str]) -> None:
    """Nothing, if each slice with a budget of its own is one of ``names``, which the test split has.

    Raises:
        ConfigError: one is not, and would be judged by nothing.
    """
    known = set(names)
    for name in budgets.slices:
        if name not in known:
            raise ConfigError(
                f"gate.slices has {name!r}, and no test sample is of it; {nearest(name, sorted(known))}; write it as "
                "it is in the list, or leave it out"
            )


def slice_notes(comparison: Comparison, budgets: Gate, sizes: Mapping[str, int]) -> list[str]:
    """Which slices have too few test samples for their budget, whatever is built; ``sizes``: slice → its samples."""
    lost = comparison.lost if isinstance(comparison, BySliceScore) else None
    limits = {name: budgets.slices.get(name, budgets.max_slice_drop) for name in sizes}
    least = {name: _least(limit, budgets.confidence, lost) for name, limit in limits.items()}
    small = sorted((name for name, size in sizes.items() if size < least[name]), key=lambda name: sizes[name])
    if not small:
        return []
    shown = ", ".join(f"{line(repr(name))} {sizes[name]} of {least[name]}" for name in small[:_NAMED])
    more = f", and {len(small) - _NAMED} more" if len(small) > _NAMED else ""
    return [
        f"{len(small)} of {len(sizes)} slices have too few test samples for their budgets to be decided at "
        f"gate.confidence {budgets.confidence:g}, even if none is lost: {shown}{more}; add samples of them, raise "
        "their budgets (gate.slices), or set these to 0"
    ]


def _least(budget: float, confidence: float, lost: float | None) -> int:
    """Samples that show a ``budget`` if none is lost; where slices are scored one costs ``lost`` samples."""
    if not budget:
        return 0
    return fewest_samples(1 - budget, confidence) if lost is None else units_that_agree(budget, confidence, lost) or 0


def judge_slices(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Whether each slice of the shipped model keeps to its budget (``runtime.statistics.groups``)."""
    result = partial(GateResult, gate="slice_drop", metric=f"slice_{accuracy.metric}_drop")
    slices = accuracy.each_slice
    budget = {group.name: budgets.slices.get(group.name, budgets.max_slice_drop) for group in slices}
    judged = [group for group in slices if budget[group.name]]
    given = () if isinstance(accuracy.slice_bounds, msgspec.UnsetType) else accuracy.slice_bounds
    bounds = [of for group, of in zip(slices, given, strict=False) if budget[group.name]]
    if not judged:
        text = "answers are not judged by slice, so their drops are not known; set gate.max_slice_drop = 0"
        limit = budgets.max_slice_drop or max(budgets.slices.values())
        return result(value=None, bound=None, limit=limit, verdict="undecided", text=text)
    seen = judge_groups(judged, [budget[group.name] for group in judged], "slices", budgets.confidence, bounds)
    text, worst = f"{accuracy.shipped}: {seen.explain()}", seen.cause
    if seen.verdict != "pass":
        text += "; to improve: more samples of these slices, compress less, or raise their budgets (gate.slices)"
    # Slices have budgets of their own: the bound is that of the slice whose budget is shown.
    bound = worst.lower if seen.verdict == "fail" else worst.upper
    return result(value=worst.group.drop, bound=bound, limit=worst.max_drop, verdict=seen.verdict, text=text)
