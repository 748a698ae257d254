"""How many samples would do: the smallest number that is enough. Standard library only."""

from __future__ import annotations

from typing import Callable

__all__ = ["fewest"]


def fewest(enough: Callable[[int], bool], above: int) -> int:
    """The smallest number greater than ``above`` that is ``enough``, as every larger one is; some must be."""
    low, high = above, max(2 * above, above + 1)
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
