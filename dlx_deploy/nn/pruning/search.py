"""How much of what is removed: the mildest pruning that reaches the asked share of what a network costs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
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
    """Something of which all but a multiple of ``step`` units can go, the weakest first; at least ``step`` stay.

    Parts of one ``family`` are alike, and what is weakest in any of them goes first; ``None``: it is alone.
    """

    strength: NDArray[np.float64]  # [units]
    step: int
    family: Hashable = None

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

    Each part, or each family of them, loses the same share, but where a step would take several parts at once they go
    one at a time, that which loses least strength first; and steps that a later, larger one made needless are taken
    back. If so much cannot be removed, all goes that may. ``near``: a share that is so near is
    reached; 0 asks for all of it, and says that a cost is slow to tell: no step is taken back.
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
    """All steps of all parts, in the order in which a growing share, the same of each family, would take them."""
    families: dict[Hashable, list[int]] = {}
    for index, part in enumerate(parts):
        families.setdefault((index,) if part.family is None else part.family, []).append(index)
    ordered = [placed for members in families.values() for placed in _placed(parts, members)]
    return [(index, count) for _, _, index, count in sorted(ordered)]


def _placed(parts: Sequence[Part], members: Sequence[int]) -> list[tuple[float, float, int, int]]:
    """The steps of one family: at what share each goes, what of its part it loses, the part, how many then stay."""
    steps = []
    for index in members:
        part = parts[index]
        units, ascending = len(part.strength), np.sort(part.strength)
        total, before, mean = max(float(ascending.sum()), np.finfo(float).tiny), units, 0.0
        for count in part.counts():
            lost = float(ascending[units - before : units - count].sum())
            mean = max(
                mean, lost / (before - count)
            )  # but for rounding it ascends: the steps of one part stay in order
            steps.append((mean, index, -count, lost / total, before - count))
            before = count
    placed, whole = [], sum(len(parts[index].strength) for index in members)
    stay = whole
    for _, index, count, lost, taken in sorted(steps):
        stay -= taken
        placed.append((1 - (stay + parts[index].step / 2) / whole, lost, index, -count))
    return placed


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
