"""Answers that changed: accuracy can stay the same while they do. Standard library only.

Of n samples some answers of a package are others than its teacher's. Some of these were right and are wrong now, some
are the reverse, and the rest were wrong and are wrong in another way. The share of all that changed is held against a
budget by the exact bounds of Clopper and Pearson (``floors``). Of masks an image counts, where its own mask is much
better or worse.
"""

from __future__ import annotations

import math
from typing import Optional

from ..errors import BudgetMissed, InputError, RuntimeFault, Undecided
from ..records import record
from ..words import percent, points
from .drops import Decision
from .floors import accuracy_lower_bound, accuracy_upper_bound, fewest_samples
from .resampled import Bounds
from .search import fewest

__all__ = ["MOVED", "FlipVerdict", "Flips", "MaskFlips", "judge_flips", "refuse_counted"]


@record
class Flips:
    """Counts of samples: right by the teacher alone (``lost``), by the package alone (``gained``), answered otherwise
    at all (``changed``), and all there are.
    """

    lost: int
    gained: int
    changed: int
    samples: int

    @property
    def share(self) -> float:
        """Of all samples those whose answer changed, 0..1."""
        return self.changed / max(self.samples, 1)

    def describe(self) -> str:
        """The counts, for people."""
        other = self.changed - self.lost - self.gained
        ways = f"{self.lost} from right to wrong, {self.gained} from wrong to right, {other} from wrong to wrong"
        return f"{self.changed} of {self.samples} answers changed ({percent(self.share)}): {ways}"


MOVED = 0.1
"""By more of its own mean IoU (ten points) an image's mask must be better or worse to count as changed: what people see
at a glance. Pixels along borders flip in every image, and say nothing."""


@record
class MaskFlips(Flips):
    """Of images that have a pixel that counts: those whose own mean IoU fell (``lost``) or rose (``gained``) by more
    than ``MOVED``."""

    def describe(self) -> str:
        """The counts, for people."""
        return (
            f"the masks of {self.changed} of {self.samples} images changed by more than {points(MOVED)} of their own "
            f"mIoU ({percent(self.share)}): {self.lost} for the worse, {self.gained} for the better"
        )


@record
class FlipVerdict:
    """Whether at most ``max_flips`` of the answers changed: pass if the upper bound is, fail if the lower is not.

    All but counts are fractions; bounds are one-sided. ``samples_needed`` is set where so many could decide.
    """

    verdict: Decision
    flips: Flips
    lower: float
    upper: float
    max_flips: float
    confidence: float
    samples_needed: Optional[int] = None

    def explain(self) -> str:
        """The verdict as a sentence, with what would decide it where it is undecided."""
        seen, level = self.flips.describe(), f"at {self.confidence:.4g} confidence"
        budget = f"budget {percent(self.max_flips)}"
        if self.verdict == "pass":
            return f"{seen}; at most {percent(self.upper)} {level}; {budget}: met"
        if self.verdict == "fail":
            return f"{seen}; at least {percent(self.lower)} {level}; {budget}: missed"
        between = f"{seen}; between {percent(self.lower)} and {percent(self.upper)} (each {level}); {budget}: undecided"
        if self.samples_needed is not None:
            return f"{between}; about {self.samples_needed} samples would decide"
        return f"{between}; more samples would rather show a miss than a pass: compress less, or raise the budget"

    def failure(self) -> Optional[RuntimeFault]:
        """The error that this verdict amounts to, or ``None`` if it is a pass."""
        kinds = {"fail": BudgetMissed, "undecided": Undecided}
        return kinds[self.verdict](self.explain()) if self.verdict in kinds else None


def judge_flips(flips: Flips, max_flips: float, confidence: float, bounds: Optional[Bounds] = None) -> FlipVerdict:
    """The verdict on ``flips``; ``bounds``: of the share that changed, where samples come in groups.

    Raises:
        InputError: a budget outside 0..1, ends excluded, no samples, or a confidence outside 0.5..1.
    """
    if not 0 < max_flips < 1:
        raise InputError(f"the budget of changed answers is {max_flips}; must be over 0 and under 1 (0.05 is 5 %)")
    n, changed = flips.samples, flips.changed
    if bounds:
        lower, upper = bounds.at(confidence)
    else:
        lower, upper = accuracy_lower_bound(changed, n, confidence), accuracy_upper_bound(changed, n, confidence)
    verdict: Decision = "pass" if upper <= max_flips else "fail" if lower > max_flips else "undecided"
    needed = None
    if verdict == "undecided" and not bounds:
        needed = _samples_needed(flips, max_flips, confidence)
    elif verdict == "undecided" and flips.share < max_flips:  # a bound comes closer with the root of the samples
        needed = math.ceil(n * ((upper - flips.share) / (max_flips - flips.share)) ** 2)
    return FlipVerdict(verdict, flips, lower, upper, max_flips, confidence, needed)


def refuse_counted(max_flips: float, max_class_drop: float, title: str) -> None:
    """Nothing, unless there is a budget of changed answers or of classes, which those judged by ``title`` cannot have.

    Raises:
        InputError: there is.
    """
    for name, budget in (("changed answers", max_flips), ("each class", max_class_drop)):
        if budget:
            raise InputError(
                f"the budget of {name} is {budget:g}, and answers that are judged by {title} are not counted one by "
                "one; leave it out"
            )


def _samples_needed(flips: Flips, max_flips: float, confidence: float) -> Optional[int]:
    """So many of which the observed share changed pass; ``None``: none of them are known to."""
    if max_flips - flips.share < max_flips / 20:
        return None

    def enough(n: int) -> bool:
        return accuracy_upper_bound(round(flips.share * n), n, confidence) <= max_flips

    return max(fewest(enough, above=flips.samples), fewest_samples(1 - max_flips, confidence))
