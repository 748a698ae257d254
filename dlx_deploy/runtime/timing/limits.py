"""Budgets held against what was measured here and between what it is."""

from __future__ import annotations

from typing import NamedTuple, Optional

from ..statistics.drops import Decision
from .verdicts import Judged

__all__ = ["Bounded", "judge_at_least", "judge_at_most"]


class Bounded(NamedTuple):
    """A value in ``unit`` and what it is between; a bound is ``None`` where there is too little to have one."""

    value: float
    lower: Optional[float]
    upper: Optional[float]
    unit: str


def judge_at_most(metric: str, what: str, seen: Bounded, limit: float, remedy: str) -> Judged:
    """Whether ``what`` is at most ``limit``: by its upper bound it is, by its lower bound it is not."""
    met = seen.upper is not None and seen.upper <= limit
    missed = seen.lower is not None and seen.lower > limit
    return _judged(metric, what, seen, limit, remedy, "pass" if met else "fail" if missed else "undecided")


def judge_at_least(metric: str, what: str, seen: Bounded, limit: float, remedy: str) -> Judged:
    """Whether ``what`` is at least ``limit``: by its lower bound it is, by its upper bound it is not."""
    met = seen.lower is not None and seen.lower >= limit
    missed = seen.upper is not None and seen.upper < limit
    flipped = Bounded(seen.value, seen.upper, seen.lower, seen.unit)
    judged = _judged(metric, what, flipped, limit, remedy, "pass" if met else "fail" if missed else "undecided")
    return judged


def _judged(metric: str, what: str, seen: Bounded, limit: float, remedy: str, verdict: Decision) -> Judged:
    """``seen.upper`` is the bound that a pass is held against, ``seen.lower`` that of a failure."""
    value, unit = f"{seen.value:.4g} {seen.unit}", seen.unit
    ends = sorted(bound for bound in (seen.lower, seen.upper) if bound is not None)
    exact = ends == [seen.value, seen.value]
    between = "" if exact else f", {' to '.join(f'{end:.4g}' for end in ends) or 'without bounds'} at 95 % confidence"
    ending = {"pass": "met", "fail": "missed", "undecided": f"undecided; {remedy}"}[verdict]
    bound = seen.lower if verdict == "fail" else seen.upper
    text = f"{what} {value}{between}; budget {limit:g} {unit}: {ending}"
    return Judged(metric, seen.value, bound, limit, verdict, text)
