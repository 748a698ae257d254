"""Quantiles of Student's t, by the incomplete beta function. Standard library only."""

from __future__ import annotations

import math

from ..errors import InputError
from .beta import incomplete_beta, largest

__all__ = ["student_quantile"]


def student_quantile(confidence: float, freedom: int) -> float:
    """The number that t with so many degrees of ``freedom`` is under with chance ``confidence``, 0.5 or more.

    With X = freedom / (freedom + t^2), the chance of |T| > t is the incomplete beta function of X at (freedom/2, 1/2).

    Raises:
        InputError: a confidence outside 0.5..1, or fewer than one degree of freedom.
    """
    if not 0.5 <= confidence < 1 or freedom < 1:
        raise InputError(
            f"the confidence is {confidence} at {freedom} degrees of freedom; must be 0.5..1, and 1 or more"
        )
    x = largest(lambda x: incomplete_beta(x, freedom / 2, 0.5) <= 2 * (1 - confidence))
    return math.sqrt(freedom * (1 - x) / x)
