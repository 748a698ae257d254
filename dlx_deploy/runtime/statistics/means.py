"""Bounds of a mean over samples, for metrics that score each sample by itself. Standard library only.

Empirical Bernstein bounds (Maurer and Pontil 2009, "Empirical Bernstein Bounds and Sample Variance Penalization",
theorem 4): whatever the distribution of numbers in a known range, a one-sided bound is on the wrong side of their true
mean with chance at most ``1 - confidence``. Models that answer alike have a small variance, and so narrow bounds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Optional

from ..errors import BudgetMissed, InputError, RuntimeFault, Undecided
from ..records import record
from ..words import points
from .drops import LEAST_ROOM, Decision
from .search import fewest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Mean", "MeanVerdict", "fewest_samples_alike", "mean_at_most"]

DROP_RANGE = 2.0
"""Of the difference of two scores, -1..1."""


@record
class Mean:
    """The mean of ``count`` numbers that lie in a range as wide as ``width``, and their variance (by ``count - 1``)."""

    value: float
    variance: float
    count: int
    width: float = 1.0

    @classmethod
    def of(cls, numbers: NDArray[np.float64], width: float = 1.0) -> Mean:
        """That of float64[n].

        Raises:
            InputError: there are none.
        """
        if not len(numbers):
            raise InputError("there are no samples to compare; at least one is needed")
        variance = float(numbers.var(ddof=1)) if len(numbers) > 1 else 0.0
        return cls(float(numbers.mean()), variance, len(numbers), width)

    def reach(self, confidence: float) -> float:
        """How far a one-sided bound is from the mean.

        Raises:
            InputError: a confidence outside 0.5..1.
        """
        if not 0.5 <= confidence < 1:
            raise InputError(f"the confidence is {confidence}; must be at least 0.5 and under 1 (for instance 0.95)")
        if self.count < 2:
            return self.width
        log = math.log(2 / (1 - confidence))
        spread = math.sqrt(2 * self.variance * log / self.count)
        return min(spread + 7 * self.width * log / (3 * (self.count - 1)), self.width)


@record
class MeanVerdict:
    """Whether what a mean estimates is at most ``limit``: pass if its upper bound is, fail if its lower bound is not.

    ``value``, ``lower``, ``upper`` and ``limit`` are fractions; ``name`` says of what, for people. ``samples_needed``
    is set where more samples are likely to end in a pass.
    """

    verdict: Decision
    name: str
    value: float
    lower: float
    upper: float
    samples: int
    limit: float
    confidence: float
    samples_needed: Optional[int] = None

    def explain(self) -> str:
        """The verdict as a sentence, with what would decide it where it is undecided."""
        seen, level = f"{self.name} {points(self.value)} on {self.samples} samples", f"at {self.confidence:.4g}"
        limit = f"limit {points(self.limit)}"
        if self.verdict == "pass":
            return f"{seen}, at most {points(self.upper)} {level} confidence; {limit}: met"
        if self.verdict == "fail":
            return f"{seen}, at least {points(self.lower)} {level} confidence; {limit}: missed"
        between = f"between {points(self.lower)} and {points(self.upper)} (each {level} confidence)"
        if self.samples_needed is not None:
            return f"{seen}, {between}; {limit}: undecided; about {self.samples_needed} samples would decide"
        return (
            f"{seen}, {between}; {limit}: undecided; more samples would rather show a miss than a pass: improve the "
            "model or raise the limit"
        )

    def failure(self) -> Optional[RuntimeFault]:
        """The error that this verdict amounts to, or ``None`` if it is a pass."""
        kinds = {"fail": BudgetMissed, "undecided": Undecided}
        return kinds[self.verdict](self.explain()) if self.verdict in kinds else None


def mean_at_most(mean: Mean, limit: float, name: str, confidence: float) -> MeanVerdict:
    """Whether what ``mean`` estimates is at most ``limit``.

    Raises:
        InputError: a limit outside 0..1, or as ``Mean.reach``.
    """
    if not 0 <= limit < 1:
        raise InputError(f"the limit is {limit}; must be at least 0 and under 1 (0.02 is two points)")
    reach = mean.reach(confidence)
    lower, upper = mean.value - reach, mean.value + reach
    verdict: Decision = "pass" if upper <= limit else "fail" if lower > limit else "undecided"
    needed = None
    if verdict == "undecided" and limit - mean.value > LEAST_ROOM:
        needed = _samples_needed(mean, limit - mean.value, confidence)
    return MeanVerdict(verdict, name, mean.value, lower, upper, mean.count, limit, confidence, needed)


def fewest_samples_alike(max_drop: float, confidence: float) -> Optional[int]:
    """So many samples are needed at least to show a drop of at most ``max_drop``, where not one score differs.

    ``None``: no number of them shows that there is none.
    """
    if max_drop <= LEAST_ROOM:
        return None
    return _samples_needed(Mean(0.0, 0.0, 0, DROP_RANGE), max_drop, confidence)


def _samples_needed(mean: Mean, room: float, confidence: float) -> int:
    """How many numbers of this variance have bounds within ``room`` of their mean."""

    def enough(count: int) -> bool:
        return Mean(mean.value, mean.variance, count, mean.width).reach(confidence) <= room

    return fewest(enough, above=1)
