"""Bounds that a gate can rest on: a paired accuracy drop, and a percentile of latencies. Standard library only.

Notation: ``n`` images, ``b`` of them right by the teacher and wrong by the student, ``c`` the reverse;
the drop is ``d = (b - c) / n``. Bounds are one-sided at ``confidence``.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal, Optional, Sequence

from ..errors import BudgetMissed, InputError, RuntimeFault, Undecided
from ..records import record
from ..words import points
from .search import fewest

__all__ = [
    "Decision",
    "Verdict",
    "drop_lower_bound",
    "drop_upper_bound",
    "non_inferiority",
    "percentile_lower_bound",
    "percentile_upper_bound",
]

POWER = 0.8  # the chance to pass that `images_needed` aims at, if the true rates are the observed ones
LEAST_ROOM = 1e-6  # between the observed drop and the budget: with less, no test set is large enough


Decision = Literal["pass", "fail", "undecided"]
"""What a bound says of a budget."""


@record
class Verdict:
    """What a non-inferiority test says: ``pass``, ``fail`` or ``undecided``, and the numbers behind it.

    ``drop``, ``upper`` and ``lower`` are fractions (0.01 is one point); ``flips`` counts the images on which exactly
    one of the two models is right; ``images_needed`` is set when more images are likely to end in a pass.
    """

    verdict: Decision
    drop: float
    upper: float
    lower: float
    flips: int
    images: int
    max_drop: float
    confidence: float
    images_needed: Optional[int] = None

    def explain(self) -> str:
        """The verdict as a sentence, with what would decide it where it is undecided."""
        seen = f"accuracy drop {points(self.drop)} on {self.images} samples"
        level, budget = f"at {self.confidence:.4g} confidence", f"budget {points(self.max_drop)}"
        if self.verdict == "pass":
            return f"{seen}, at most {points(self.upper)} {level}; {budget}: met"
        if self.verdict == "fail":
            return f"{seen}, at least {points(self.lower)} {level}; {budget}: missed"
        range_ = f"{seen}, between {points(self.lower)} and {points(self.upper)} (each {level}); {budget}: undecided"
        if self.images_needed is not None:
            return f"{range_}; about {self.images_needed} samples would decide"
        return (
            f"{range_}; the observed drop leaves no room under the budget, so more samples would rather show a miss "
            "than a pass: improve the model or raise the budget"
        )

    def failure(self) -> Optional[RuntimeFault]:
        """The error that this verdict amounts to, or ``None`` if it is a pass."""
        kinds = {"fail": BudgetMissed, "undecided": Undecided}
        return kinds[self.verdict](self.explain()) if self.verdict in kinds else None


def drop_upper_bound(b: float, c: float, n: float, confidence: float) -> float:
    """The one-sided upper bound of the drop, in -1..1, by the score of Tango (1998), Statistics in Medicine 17:891.

    It is the root of ``T(delta) = -z``, found by bisection from the side that over-covers. Counts may be fractional.

    Raises:
        InputError: no images, counts outside 0..n, or a confidence outside 0.5..1.
    """
    _check_counts(b, c, n)
    z = _quantile(confidence)
    inside, outside = (b - c) / n, 1.0
    while True:
        middle = (inside + outside) / 2
        if middle in (inside, outside):
            return outside
        if _excess(middle, b, c, n, z) > 0:
            inside = middle
        else:
            outside = middle


def drop_lower_bound(b: float, c: float, n: float, confidence: float) -> float:
    """The one-sided lower bound of the drop, in -1..1: the upper bound with the two models exchanged.

    Raises:
        InputError: as ``drop_upper_bound``.
    """
    return -drop_upper_bound(c, b, n, confidence)


def non_inferiority(b: int, c: int, n: int, max_drop: float, confidence: float) -> Verdict:
    """Whether the drop stays within ``max_drop``: pass if its upper bound does, fail if its lower bound does not.

    Raises:
        InputError: as ``drop_upper_bound``, or ``max_drop`` outside 0..1.
    """
    if not 0 <= max_drop < 1:
        raise InputError(f"the accuracy budget is {max_drop}; must be at least 0 and under 1 (0.02 is two points)")
    upper, lower = drop_upper_bound(b, c, n, confidence), drop_lower_bound(b, c, n, confidence)
    verdict: Decision = "undecided"
    if upper <= max_drop:
        verdict = "pass"
    elif lower > max_drop:
        verdict = "fail"
    drop = (b - c) / n
    hopeful = verdict == "undecided" and max_drop - drop > LEAST_ROOM
    needed = _images_needed(b, c, n, max_drop, confidence) if hopeful else None
    return Verdict(verdict, drop, upper, lower, b + c, n, max_drop, confidence, needed)


def percentile_upper_bound(samples: Sequence[float], percentile: float, confidence: float) -> Optional[float]:
    """The order statistic that the true percentile exceeds with chance at most ``1 - confidence``.

    ``samples`` is sorted, ``percentile`` in 0..100. ``None``: too few samples (p90 at 0.95 takes 29).

    Raises:
        InputError: a percentile outside 0..100 or a confidence outside 0.5..1.
    """
    p, alpha = _fraction(percentile), 1 - _confidence(confidence)
    n = len(samples)
    tail = 0.0
    for k in range(n, 0, -1):  # tail = P(X >= k), X ~ Binomial(n, p) samples at or under the true percentile
        tail += _binomial(k, n, p)
        if tail > alpha:
            return samples[k] if k < n else None
    return samples[0] if n else None


def percentile_lower_bound(samples: Sequence[float], percentile: float, confidence: float) -> Optional[float]:
    """The order statistic that the true percentile falls under with chance at most ``1 - confidence``.

    Raises:
        InputError: as ``percentile_upper_bound``.
    """
    mirrored = percentile_upper_bound([-x for x in reversed(samples)], 100 - percentile, confidence)
    return None if mirrored is None else -mirrored


def _excess(delta: float, b: float, c: float, n: float, z: float) -> float:
    """Positive where ``T(delta) > -z``: the numerator of T plus z times its denominator."""
    linear = -b - c + (2 * n - b + c) * delta
    constant = -c * delta * (1 - delta)
    root = math.sqrt(max(linear * linear - 8 * n * constant, 0.0))
    # Two forms of the same root: the first does not cancel where linear > 0.
    q = -2 * constant / (root + linear) if linear > 0 else (root - linear) / (4 * n)
    return b - c - n * delta + z * math.sqrt(max(n * (2 * q + delta * (1 - delta)), 0.0))


def _images_needed(b: int, c: int, n: int, max_drop: float, confidence: float) -> int:
    """The images with which the observed rates pass with chance ``POWER``, and never fewer than pass at all."""
    discordant, drop = (b + c) / n, (b - c) / n
    z = _quantile(confidence) + NormalDist().inv_cdf(POWER)
    powered = math.ceil(z * z * (discordant - drop * drop) / (max_drop - drop) ** 2)

    def enough(count: int) -> bool:
        return drop_upper_bound(b * count / n, c * count / n, count, confidence) <= max_drop

    return max(powered, fewest(enough, above=n))


def _binomial(k: int, n: int, p: float) -> float:
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(choose + k * math.log(p) + (n - k) * math.log1p(-p))


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(_confidence(confidence))


def _confidence(confidence: float) -> float:
    if not 0.5 <= confidence < 1:
        raise InputError(f"the confidence is {confidence}; must be at least 0.5 and under 1, for instance 0.95")
    return confidence


def _fraction(percentile: float) -> float:
    if not 0 < percentile < 100:
        raise InputError(f"the percentile is {percentile}; must be between 0 and 100, for instance 90")
    return percentile / 100


def _check_counts(b: float, c: float, n: float) -> None:
    if n <= 0:
        raise InputError("there are no images to compare; at least one is needed")
    if b < 0 or c < 0 or b + c > n * (1 + 1e-12):
        raise InputError(f"b is {b}, c is {c} of n = {n} images; they count disjoint images, so 0 <= b + c <= n")
