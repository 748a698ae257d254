"""How masks are judged: mean intersection over union, and that of each class, against the teacher's."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import RuntimeFault, first_fault
from ..records import record, replace
from ..statistics.clustered import grouped_share
from ..statistics.flips import FlipVerdict, MaskFlips, judge_flips
from ..statistics.groups import GroupsVerdict, describe_worst, judge_groups
from ..statistics.resampled import DropVerdict, FloorVerdict, judge_drops, judge_value
from ..statistics.scored import Scored
from ..words import SAMPLES
from .arrays import Arrays
from .grouped import GROUP, drawn_of
from .mask_classes import class_iou_bounds, class_ious
from .mask_counts import COUNTS, TITLE, counted_masks, iou_of, mean_iou_bounds, mean_iou_drops, moved_masks
from .task import Budgets

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MaskVerification", "judge_masks"]


@record
class MaskVerification:
    """The gate's verdict, each class's intersection over union, and how many masks have changed since the build.

    ``classes``: how far each class drops, and ``class_budget`` the verdict on that, if there is a budget; ``flips``:
    how many images have another mask than the teacher's, and ``flip_budget`` likewise.
    """

    verdict: DropVerdict
    teacher_iou: Mapping[str, Optional[float]]
    iou: Mapping[str, Optional[float]]
    changed: int
    flips: MaskFlips
    classes: Tuple[Scored, ...] = ()
    floor: Optional[FloorVerdict] = None
    class_budget: Optional[GroupsVerdict] = None
    flip_budget: Optional[FlipVerdict] = None
    reference: str = "teacher"

    def failure(self) -> Optional[RuntimeFault]:
        """The error that the verdicts amount to, a miss before an undecided one, or ``None`` if all pass."""
        judged = (self.verdict, self.floor, self.flip_budget, self.class_budget)
        return first_fault([verdict.failure() for verdict in judged if verdict])

    def to_dict(self) -> Dict[str, Any]:
        """The result as JSON-ready values."""
        held = asdict(replace(self, classes=(), class_budget=None))
        del held["classes"]  # what is in them is ``teacher_iou`` and ``iou``
        return {**held, "class_budget": self.class_budget.to_dict() if self.class_budget else None}

    def lines(self, noun: str) -> List[str]:
        """The result for people."""
        seen = self.verdict
        lines = [
            f"mIoU: {self.reference} {100 * seen.teacher:.2f} %, package {100 * seen.package:.2f} % on {seen.units} "
            f"{noun if seen.noun == SAMPLES else f'{seen.noun} of {noun}'}"
        ]
        there = {label: value for label, value in self.iou.items() if value is not None}
        worst = sorted(there, key=lambda label: there[label])[:3]
        lines.append("lowest: " + ", ".join(f"{label} {100 * there[label]:.2f} %" for label in worst))
        lines.append(seen.explain())
        if self.floor:
            lines.append(self.floor.explain())
        lines.append(self.flip_budget.explain() if self.flip_budget else self.flips.describe())
        dropped = describe_worst(self.classes, "classes")
        lines += [self.class_budget.explain()] if self.class_budget else [dropped] if dropped else []
        if self.changed:
            lines.append(f"{self.changed} {noun} have another mask than when the package was built")
        return lines


def judge_masks(
    teacher: Arrays, package: Arrays, labels: Sequence[str], budgets: Budgets, changed: int
) -> MaskVerification:
    """As ``Masks.judge``, of the counts of the teacher and of the package.

    Raises:
        InputError: a budget out of range.
    """
    ours, theirs, groups = teacher[COUNTS], package[COUNTS], package.get(GROUP)
    verdict = judge_drops(mean_iou_drops(ours, theirs, groups), TITLE, budgets.max_drop, budgets.confidence)
    classes, most, floor, held = class_ious(ours, theirs, labels, groups), budgets.max_class_drop, None, None
    if budgets.min_accuracy:
        value, bounds = mean_iou_bounds(theirs, groups)
        floor = judge_value(value, bounds, drawn_of(package), TITLE, budgets.min_accuracy, budgets.confidence)
    if most:
        each = class_iou_bounds(ours, theirs, groups)
        held = judge_groups(classes, [most] * len(classes), "classes", budgets.confidence, each)
    flips, flipped = _flips(ours, theirs, groups, budgets)
    by_class = _by_class(ours, labels), _by_class(theirs, labels)
    return MaskVerification(verdict, *by_class, changed, flips, classes, floor, held, flipped)


def _flips(
    ours: NDArray[np.int64], theirs: NDArray[np.int64], groups: Optional[NDArray[np.int64]], budgets: Budgets
) -> Tuple[MaskFlips, Optional[FlipVerdict]]:
    """How many masks changed, and the verdict on that, if there is a budget."""
    worse, better = moved_masks(ours, theirs)
    lost, gained = int(worse.sum()), int(better.sum())
    flips = MaskFlips(lost, gained, lost + gained, len(worse))
    if not budgets.max_flips:
        return flips, None
    bounds = None if groups is None else grouped_share(worse | better, groups[counted_masks(ours)])[1]
    return flips, judge_flips(flips, budgets.max_flips, budgets.confidence, bounds)


def _by_class(counts: NDArray[np.int64], labels: Sequence[str]) -> Dict[str, Optional[float]]:
    iou = iou_of(counts.sum(axis=0).astype(np.float64))
    return {label: None if np.isnan(iou[k]) else float(iou[k]) for k, label in enumerate(labels)}
