"""How much of what is removed: the mildest pruning that reaches the asked share of what a network costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOLERANCE", "Cost", "Part", "fewest", "mildest"]

TOLERANCE = 0.02
"""Channel counts move in steps, so do shares: this near to what was asked is what was asked."""

Cost = Callable[[Sequence[int]], float]
"""What is left, in multiply-accumulates, parameters or milliseconds, when so many units stay of each part."""


@dataclass(frozen=True)
class Part:
    """Something of which all but a multiple of ``step`` units can go, the weakest first; at least ``step`` stay."""

    strength: NDArray[np.float64]  # [units]
    step: int

    @property
    def order(self) -> NDArray[np.int64]:
        """int64[units]: the units, weakest first."""
        return np.argsort(self.strength, kind="stable")

    def counts(self) -> list[int]:
        """How many units can stay, all of them excepted; descending."""
        most = (len(self.strength) - 1) // self.step
        return [n * self.step for n in range(most, 0, -1)]


def fewest(parts: Sequence[Part]) -> list[int]:
    """How many units stay of each part when all goes that may."""
    return [(part.counts() or [len(part.strength)])[-1] for part in parts]


def mildest(parts: Sequence[Part], cost: Cost, before: float, share: float, near: float = TOLERANCE) -> list[int]:
    """How many units stay of each part, so that ``share`` (0..1) of ``before``, what all of them cost, is gone.

    Each part loses the same share, but where a step would take several parts at once they go one at a time, that which
    loses least strength first; and steps that a later, larger one made needless are taken back. If so much cannot be
    removed, all goes that may. ``near``: a share that is so near is reached; 0 asks for all of it, and for a cost that
    is slow to tell: it is then asked a handful of times, and no step is taken back.
    """
    steps = _steps(parts)

    def removed(count: int) -> float:
        return 1 - cost(_after(parts, steps[:count])) / before

    low, high = 0, len(steps)  # removed(low) is less than asked; removed(high) is not, or cannot be
    if share <= 0:
        return _after(parts, [])
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if removed(middle) >= share else (middle, high)
    if not near:
        return _after(parts, steps[:high])
    short, over = share - removed(low), removed(high) - share
    if short <= near and short < over:
        return _after(parts, steps[:low])
    return (
        _without_needless(parts, steps[:high], cost, (1 - share) * before)
        if over > near
        else _after(parts, steps[:high])
    )


Step = tuple[int, int]
"""A part, and how many of its units then stay."""


def _steps(parts: Sequence[Part]) -> list[Step]:
    """All steps of all parts, in the order in which a growing share, the same of each part, would take them."""
    ordered = []
    for index, part in enumerate(parts):
        units, ascending = len(part.strength), np.sort(part.strength)
        total, before = max(float(ascending.sum()), np.finfo(float).tiny), units
        for count in part.counts():
            lost = float(ascending[units - before : units - count].sum()) / total
            ordered.append((1 - (count + part.step / 2) / units, lost, index, count))
            before = count
    return [(index, count) for _, _, index, count in sorted(ordered)]


def _after(parts: Sequence[Part], steps: Sequence[Step]) -> list[int]:
    kept = [len(part.strength) for part in parts]
    for index, count in steps:
        kept[index] = count
    return kept


def _without_needless(parts: Sequence[Part], steps: Sequence[Step], cost: Cost, enough: float) -> list[int]:
    """What stays after ``steps``, less those without which it costs still at most ``enough``."""
    taken = list(steps)
    for step in reversed(steps[:-1]):
        last = [s for s in taken if s[0] == step[0]][-1]
        if last == step:
            fewer = [s for s in taken if s != step]
            if cost(_after(parts, fewer)) <= enough:
                taken = fewer
    return _after(parts, taken)
