"""An absolute floor under an accuracy, held against an exact confidence bound. Standard library only.

``right`` of ``n`` samples are right. The bounds are those of Clopper and Pearson (Biometrika 26:404, 1934): whatever
the true accuracy, a one-sided bound is on the wrong side of it with chance at most ``1 - confidence``.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Optional

from ..errors import BudgetMissed, InputError, RuntimeFault, Undecided
from ..records import record
from ..words import percent
from .beta import incomplete_beta, largest
from .drops import LEAST_ROOM, POWER, Decision
from .search import fewest

__all__ = ["Floor", "accuracy_floor", "accuracy_lower_bound", "accuracy_upper_bound", "fewest_samples", "most_of"]


@record
class Floor:
    """Whether an accuracy is at least ``floor``: pass if its lower bound is, fail if its upper bound is not.

    ``accuracy``, ``lower``, ``upper`` and ``floor`` are fractions; ``samples_needed`` is set where more samples are
    likely to end in a pass.
    """

    verdict: Decision
    accuracy: float
    lower: float
    upper: float
    samples: int
    floor: float
    confidence: float
    samples_needed: Optional[int] = None

    def explain(self) -> str:
        """The verdict as a sentence, with what would decide it where it is undecided."""
        seen, level = (
            f"accuracy {percent(self.accuracy)} on {self.samples} samples",
            f"at {self.confidence:.4g} confidence",
        )
        rule = f"the floor is {percent(self.floor)}"
        if self.verdict == "pass":
            return f"{seen}, at least {percent(self.lower)} {level}; {rule}: met"
        if self.verdict == "fail":
            return f"{seen}, at most {percent(self.upper)} {level}; {rule}: missed"
        range_ = f"{seen}, between {percent(self.lower)} and {percent(self.upper)} (each {level}); {rule}: undecided"
        if self.samples_needed is not None:
            return f"{range_}; about {self.samples_needed} samples would decide"
        return f"{range_}; more samples would rather show a miss than a pass: improve the model or lower the floor"

    def failure(self) -> Optional[RuntimeFault]:
        """The error that this verdict amounts to, or ``None`` if it is a pass."""
        kinds = {"fail": BudgetMissed, "undecided": Undecided}
        return kinds[self.verdict](self.explain()) if self.verdict in kinds else None


def accuracy_floor(right: int, n: int, floor: float, confidence: float) -> Floor:
    """Whether ``right`` of ``n`` show an accuracy of at least ``floor``.

    Raises:
        InputError: as ``accuracy_lower_bound``, or a floor outside 0..1.
    """
    if not 0 <= floor < 1:
        raise InputError(f"the least accuracy is {floor}; must be at least 0 and under 1 (0.9 is 90 %)")
    lower, upper = accuracy_lower_bound(right, n, confidence), accuracy_upper_bound(right, n, confidence)
    verdict: Decision = "undecided"
    if lower >= floor:
        verdict = "pass"
    elif upper < floor:
        verdict = "fail"
    hopeful = verdict == "undecided" and right / n - floor > LEAST_ROOM
    needed = _samples_needed(right, n, floor, confidence) if hopeful else None
    return Floor(verdict, right / n, lower, upper, n, floor, confidence, needed)


def accuracy_lower_bound(right: int, n: int, confidence: float) -> float:
    """The accuracy under which ``right`` or more of ``n`` have chance ``1 - confidence``.

    Raises:
        InputError: no samples, a count outside 0..n, or a confidence outside 0.5..1.
    """
    _check(right, n, confidence)
    if right == 0:
        return 0.0
    return largest(lambda p: incomplete_beta(p, right, n - right + 1) <= 1 - confidence)


def accuracy_upper_bound(right: int, n: int, confidence: float) -> float:
    """The lower bound with right and wrong exchanged.

    Raises:
        InputError: as ``accuracy_lower_bound``.
    """
    return 1 - accuracy_lower_bound(n - right, n, confidence)


def fewest_samples(floor: float, confidence: float) -> int:
    """The samples that show an accuracy of at least ``floor`` (0..1, ends excluded) if every single one is right.

    Raises:
        InputError: a floor or a confidence out of range.
    """
    if not 0 < floor < 1:
        raise InputError(f"the least accuracy is {floor}; must be over 0 and under 1")
    _check(0, 1, confidence)
    return max(math.ceil(math.log(1 - confidence) / math.log(floor) * (1 - 1e-12)), 1)


def most_of(n: int, share: float, chance: float) -> int:
    """The most of ``n`` samples that something which happens to a ``share`` (0..1) of all can be expected to happen to:
    more of them have a chance under ``chance``, exactly (binomial).

    Raises:
        InputError: no samples.
    """
    _check(0, n, 0.5)
    if not 0 < share < 1:
        return n if share >= 1 else 0
    return fewest(lambda k: k > n or incomplete_beta(share, k, n - k + 1) < chance, 0) - 1


def _samples_needed(right: int, n: int, floor: float, confidence: float) -> int:
    """The samples with which the observed accuracy passes with chance ``POWER``; more than there are."""
    seen, normal = right / n, NormalDist()
    spread = normal.inv_cdf(confidence) * math.sqrt(floor * (1 - floor))
    spread += normal.inv_cdf(POWER) * math.sqrt(seen * (1 - seen))
    return max(math.ceil((spread / (seen - floor)) ** 2), n + 1, fewest_samples(floor, confidence) if floor else 1)


def _check(right: int, n: int, confidence: float) -> None:
    if n <= 0:
        raise InputError("there are no samples to judge; at least one is needed")
    if not 0 <= right <= n:
        raise InputError(f"{right} of {n} samples are right; must be 0 to {n}")
    if not 0.5 <= confidence < 1:
        raise InputError(f"the confidence is {confidence}; must be at least 0.5 and under 1, for instance 0.95")
