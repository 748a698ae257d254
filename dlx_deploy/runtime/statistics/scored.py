"""Groups of samples by a metric that counts no right answers: a class by its intersection over union, a slice by its
macro-F1.

Their drops are bounded by resampling (``bootstrap``), and judged together as ``groups`` has it. Standard library only.
"""

from __future__ import annotations

from typing import Optional

from ..records import record
from ..words import SAMPLES, line, percent, points
from .resampled import units_that_agree

__all__ = ["Scored"]


@record
class Scored:
    """One group. ``teacher``, ``package``: the ``metric`` of each, fractions, ``None`` where it has no value;
    ``samples``: the units that show the group, called ``noun``.

    ``cost``: so much of a unit a unit costs on which one model alone is right. ``why``: why nothing can be said of its
    drop; empty where something can.
    """

    name: str
    samples: int
    teacher: Optional[float]
    package: Optional[float]
    metric: str
    cost: float = 1.0
    noun: str = SAMPLES
    why: str = ""

    @property
    def drop(self) -> float:
        """Of the metric; 0 where it has no value."""
        return 0.0 if self.teacher is None or self.package is None else self.teacher - self.package

    def describe(self) -> str:
        """The drop and what it is of, for people."""
        values = "has no value"
        if self.teacher is not None and self.package is not None:
            values = f"{percent(self.teacher)} to {percent(self.package)}"
        seen = f"{self.metric} {values}, shown by {self.samples} {self.noun}"
        return f"{line(repr(self.name))} {points(self.drop)} ({seen})"

    def least(self, limit: float, confidence: float) -> int:
        """Units that show the group, at least, to show ``limit`` even if both models agree on each."""
        return units_that_agree(limit, confidence, self.cost) or 1
