"""By what a package is judged where that is not the task's own metric: ``gate.metric`` of its build."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Optional

from ..errors import InputError, RuntimeFault, first_fault
from ..records import record, replace
from ..words import GROUPS, SAMPLES, percent
from .metric_names import TITLES
from .task import Task

if TYPE_CHECKING:
    from ..package.fields import Fields
    from ..statistics.resampled import DropVerdict, FloorVerdict

__all__ = ["OWN", "Judging", "MetricVerification", "judged", "judging_fields", "judging_of", "read_judging"]

METRIC, UNITS = "budgets.metric", "budgets.units"


@record
class Judging:
    """``metric``: its name; "": the task's own. ``grouped``: whole groups of samples are drawn, not single ones."""

    metric: str = ""
    grouped: bool = False

    @property
    def title(self) -> str:
        """The metric for people; "" for the task's own."""
        return TITLES.get(self.metric, self.metric)


OWN = Judging()
"""As the task is judged where nobody asks for more."""


@record
class MetricVerification:
    """The gate's verdict by a metric called ``title``, with a floor if there is one; ``changed`` counts samples whose
    target is another than when the package was built."""

    title: str
    verdict: DropVerdict
    changed: int
    floor: Optional[FloorVerdict] = None
    reference: str = "teacher"

    def failure(self) -> Optional[RuntimeFault]:
        """The error that the verdicts amount to, a miss before an undecided one, or ``None`` if all pass."""
        faults = [self.verdict.failure(), self.floor.failure() if self.floor else None]
        return first_fault(faults)

    def to_dict(self) -> Dict[str, object]:
        """The result as JSON-ready values."""
        from dataclasses import asdict

        return asdict(self)

    def lines(self, noun: str) -> List[str]:
        """The result for people."""
        seen = self.verdict
        lines = [
            f"{self.title}: {self.reference} {percent(seen.teacher)}, package {percent(seen.package)} on {seen.units} "
            f"{noun if seen.noun == SAMPLES else f'{seen.noun} of {noun}'}",
            seen.explain(),
        ]
        lines += [self.floor.explain()] if self.floor else []
        lines += [f"{self.changed} {noun} have another target than when it was built"] if self.changed else []
        return lines


def judged(task: Task, judging: Judging) -> Task:
    """``task`` with answers that are judged so.

    Raises:
        InputError: they cannot be.
    """
    if judging == OWN:
        return task
    judge_by = getattr(task.outputs, "judged_by", None)
    if judge_by is None and judging.metric:
        raise InputError(f"metric is {judging.metric!r}; {task.name} has its own alone")
    if judge_by is None:
        raise InputError(f"its samples come in groups, and {task.name} draws single ones")
    return replace(task, outputs=judge_by(judging))


def judging_of(task: Task) -> Judging:
    """By what ``task`` is judged."""
    judging: Judging = getattr(task.outputs, "judging", OWN)
    return judging


def judging_fields(judging: Judging) -> Dict[str, object]:
    """What ``package.json`` says of it among the budgets; nothing of the task's own metric, nor of single samples."""
    units = {"units": GROUPS} if judging.grouped else {}
    return {**({"metric": judging.metric} if judging.metric else {}), **units}


def read_judging(field: Fields, task: Task) -> Task:
    """``task``, judged as the package's budgets say.

    Raises:
        PackageError: its answers cannot be judged so.
    """
    metric = field.get(METRIC, str) if field.has(METRIC) else ""
    units = field.get(UNITS, str) if field.has(UNITS) else SAMPLES
    if units not in (GROUPS, SAMPLES):
        raise field.wrong(UNITS, units, f"must be {GROUPS!r}, or left out")
    try:
        return judged(task, Judging(metric, units == GROUPS))
    except InputError as e:
        raise field.wrong(METRIC, metric, str(e)) from e
