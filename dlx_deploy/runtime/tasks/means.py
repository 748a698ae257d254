"""The verdict on answers that have a score each, by the mean: whatever the task."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Dict, List, Optional

from ..errors import InputError, RuntimeFault, first_fault
from ..records import record
from ..statistics.flips import refuse_counted
from ..statistics.means import DROP_RANGE, Mean, MeanVerdict, mean_at_most
from ..words import percent
from .task import Budgets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MeanVerification", "judge_scores"]


@record
class MeanVerification:
    """The mean scores of a teacher and a package, and the verdicts on the drop and on the package's own.

    ``title``: what scores are called. ``changed`` counts samples whose target is another than when the package was
    built.
    """

    title: str
    teacher: float
    package: float
    drop: MeanVerdict
    changed: int
    shortfall: Optional[MeanVerdict] = None
    reference: str = "teacher"

    def failure(self) -> Optional[RuntimeFault]:
        """The error that the verdicts amount to, a miss before an undecided one, or ``None`` if all pass."""
        faults = [self.drop.failure(), self.shortfall.failure() if self.shortfall else None]
        return first_fault(faults)

    def to_dict(self) -> Dict[str, object]:
        """The result as JSON-ready values."""
        return asdict(self)

    def lines(self, noun: str) -> List[str]:
        """The result for people."""
        lines = [
            f"{self.title}: {self.reference} {percent(self.teacher)}, package {percent(self.package)} of "
            f"{self.drop.samples} {noun}",
            self.drop.explain(),
        ]
        lines += [self.shortfall.explain()] if self.shortfall else []
        lines += [f"{self.changed} {noun} have another target than when it was built"] if self.changed else []
        return lines


def judge_scores(
    teacher: NDArray[np.float64], package: NDArray[np.float64], title: str, budgets: Budgets, changed: int
) -> MeanVerification:
    """The verdict on a package's scores float64[n], 0..1, beside its teacher's on the same samples.

    A ``min_accuracy`` is the least mean score: ``1 - score`` is at most what is left to 1.

    Raises:
        InputError: no samples, a budget out of range, or one of changed answers or of each class.
    """
    refuse_counted(budgets.max_flips, budgets.max_class_drop, title)
    if not 0 <= budgets.min_accuracy < 1:
        raise InputError(f"the least score is {budgets.min_accuracy}; must be at least 0 and under 1 (0.9 is 90 %)")
    drop = mean_at_most(Mean.of(teacher - package, DROP_RANGE), budgets.max_drop, f"{title} drop", budgets.confidence)
    shortfall = None
    if budgets.min_accuracy:
        most = 1 - budgets.min_accuracy
        shortfall = mean_at_most(Mean.of(1 - package), most, f"1 - {title}", budgets.confidence)
    return MeanVerification(title, float(teacher.mean()), float(package.mean()), drop, changed, shortfall)
