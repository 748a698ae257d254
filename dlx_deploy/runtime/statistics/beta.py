"""The incomplete beta function, from which the quantiles of several distributions follow. Standard library only."""

from __future__ import annotations

import math
from typing import Callable

__all__ = ["incomplete_beta", "largest"]


def largest(under: Callable[[float], bool]) -> float:
    """The largest number in 0..1 that is ``under``, which small numbers are and large ones are not."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return low
        if under(middle):
            low = middle
        else:
            high = middle


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function: the chance of ``a`` or more successes in ``a + b - 1`` trials."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction below converges slowly
        return 1 - incomplete_beta(1 - x, b, a)
    head = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(head) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    """Its continued fraction by Lentz's method (Numerical Recipes, 3rd edition, 6.4)."""
    tiny = 1e-300
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + term * d, tiny)
            c = _away(1 + term / c, tiny)
            fraction *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return fraction


def _away(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
