"""What a gate says of bounds that resampling gave: how far a metric drops, and whether it is above a floor.

Bounds are kept at fixed confidences, so that a verdict needs no second resampling. Standard library only.
"""

from __future__ import annotations

import math
from typing import Optional, Tuple

from ..errors import BudgetMissed, InputError, RuntimeFault, Undecided
from ..records import record
from ..words import SAMPLES, percent, points
from .drops import Decision

__all__ = [
    "LEVELS",
    "UNKNOWN",
    "Bounds",
    "Drawn",
    "DropVerdict",
    "Drops",
    "FloorVerdict",
    "judge_drops",
    "judge_value",
    "units_that_agree",
]

LEVELS = tuple(round(0.5 + 0.01 * i, 3) for i in range(45)) + tuple(round(0.95 + 0.001 * i, 3) for i in range(50))
"""Confidences, ascending, at which bounds are kept; one in between gets the bound of the next."""


@record
class Drawn:
    """How many units are drawn, and what they are."""

    count: int
    noun: str = SAMPLES


@record
class Bounds:
    """One-sided bounds of what was resampled, at each of ``LEVELS``."""

    lowers: Tuple[float, ...]
    uppers: Tuple[float, ...]

    def at(self, confidence: float) -> Tuple[float, float]:
        """The lower and the upper bound, each at ``confidence``.

        Raises:
            InputError: it is under 0.5, or above what can be told of so many resamples.
        """
        if not LEVELS[0] <= confidence <= LEVELS[-1]:
            raise InputError(
                f"the confidence is {confidence}; must be {LEVELS[0]} to {LEVELS[-1]}, what resampling tells"
            )
        place = next(i for i, level in enumerate(LEVELS) if level >= confidence)
        return self.lowers[place], self.uppers[place]


UNKNOWN = Bounds((-1.0,) * len(LEVELS), (1.0,) * len(LEVELS))
"""Of what nothing was seen of."""


@record
class Drops:
    """A metric of two models, fractions, on the same ``units``, and how far the drop may be another. ``noun``: what
    the units are."""

    teacher: float
    package: float
    units: int
    bounds: Bounds
    noun: str = SAMPLES

    @property
    def drop(self) -> float:
        """Of the metric."""
        return self.teacher - self.package


@record
class DropVerdict:
    """Whether a metric's drop stays within ``max_drop``: pass if its upper bound does, fail if its lower does not.

    ``teacher``, ``package``, ``drop``, ``lower``, ``upper`` and ``max_drop`` are fractions; bounds are one-sided.
    ``noun``: what the units are.
    """

    verdict: Decision
    metric: str
    teacher: float
    package: float
    drop: float
    lower: float
    upper: float
    units: int
    max_drop: float
    confidence: float
    units_needed: Optional[int] = None
    noun: str = SAMPLES

    def explain(self) -> str:
        """The verdict as a sentence, with what would decide it where it is undecided."""
        seen, level = f"{self.metric} drop {points(self.drop)} on {self.units} {self.noun}", f"at {self.confidence:.4g}"
        budget = f"budget {points(self.max_drop)}"
        if self.verdict == "pass":
            return f"{seen}, at most {points(self.upper)} {level} confidence; {budget}: met"
        if self.verdict == "fail":
            return f"{seen}, at least {points(self.lower)} {level} confidence; {budget}: missed"
        between = f"between {points(self.lower)} and {points(self.upper)} (each {level} confidence)"
        if self.units_needed is not None:
            return f"{seen}, {between}; {budget}: undecided; about {self.units_needed} {self.noun} would decide"
        return (
            f"{seen}, {between}; {budget}: undecided; the observed drop leaves no room under the budget, so more "
            f"{self.noun} would rather show a miss than a pass: improve the model or raise the budget"
        )

    def failure(self) -> Optional[RuntimeFault]:
        """The error that this verdict amounts to, or ``None`` if it is a pass."""
        kinds = {"fail": BudgetMissed, "undecided": Undecided}
        return kinds[self.verdict](self.explain()) if self.verdict in kinds else None


@record
class FloorVerdict:
    """Whether a metric is at least ``floor``: pass if its lower bound is, fail if its upper is not. All fractions.
    ``noun``: what the units are."""

    verdict: Decision
    metric: str
    value: float
    lower: float
    upper: float
    units: int
    floor: float
    confidence: float
    noun: str = SAMPLES

    def explain(self) -> str:
        """The verdict as a sentence."""
        seen, level = f"{self.metric} is {percent(self.value)} on {self.units} {self.noun}", f"at {self.confidence:.4g}"
        floor = f"floor {percent(self.floor)}"
        if self.verdict == "pass":
            return f"{seen}, at least {percent(self.lower)} {level} confidence; {floor}: met"
        if self.verdict == "fail":
            return f"{seen}, at most {percent(self.upper)} {level} confidence; {floor}: missed"
        between = f"between {percent(self.lower)} and {percent(self.upper)} (each {level} confidence)"
        return f"{seen}, {between}; {floor}: undecided; more {self.noun} would decide"

    def failure(self) -> Optional[RuntimeFault]:
        """The error that this verdict amounts to, or ``None`` if it is a pass."""
        kinds = {"fail": BudgetMissed, "undecided": Undecided}
        return kinds[self.verdict](self.explain()) if self.verdict in kinds else None


def judge_drops(drops: Drops, name: str, max_drop: float, confidence: float) -> DropVerdict:
    """The verdict on a metric called ``name``.

    Raises:
        InputError: ``max_drop`` outside 0..1, or a confidence outside ``LEVELS``.
    """
    if not 0 <= max_drop < 1:
        raise InputError(f"the budget is {max_drop}; must be at least 0 and under 1 (0.02 is two points)")
    lower, upper = drops.bounds.at(confidence)
    verdict: Decision = "undecided"
    if upper <= max_drop:
        verdict = "pass"
    elif lower > max_drop:
        verdict = "fail"
    needed = None
    if verdict == "undecided" and max_drop > drops.drop:  # a bound comes closer with the root of the units
        needed = math.ceil(drops.units * ((upper - drops.drop) / (max_drop - drops.drop)) ** 2)
    return DropVerdict(
        verdict=verdict,
        metric=name,
        teacher=drops.teacher,
        package=drops.package,
        drop=drops.drop,
        lower=lower,
        upper=upper,
        units=drops.units,
        max_drop=max_drop,
        confidence=confidence,
        units_needed=needed,
        noun=drops.noun,
    )


def judge_value(value: float, bounds: Bounds, drawn: Drawn, name: str, floor: float, confidence: float) -> FloorVerdict:
    """The verdict on the ``value`` of a metric called ``name``, with its ``bounds``.

    Raises:
        InputError: ``floor`` outside 0..1, or a confidence outside ``LEVELS``.
    """
    if not 0 <= floor < 1:
        raise InputError(f"the floor is {floor}; must be at least 0 and under 1")
    lower, upper = bounds.at(confidence)
    verdict: Decision = "undecided"
    if lower >= floor:
        verdict = "pass"
    elif upper < floor:
        verdict = "fail"
    return FloorVerdict(verdict, name, value, lower, upper, drawn.count, floor, confidence, drawn.noun)


def units_that_agree(max_drop: float, confidence: float, share: float) -> Optional[int]:
    """So many units are needed at least, where both models agree on each, and one more could cost ``share`` of a unit.

    The extra unit is drawn about Poisson often with mean 1; ``None``: no number of units allows for no drop at all.
    """
    if max_drop <= 0:
        return None
    draws, probability = 0, math.exp(-1)
    below = probability
    while below < confidence:
        draws += 1
        probability /= draws
        below += probability
    return math.ceil(draws * share / max_drop)
