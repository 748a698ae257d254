"""The verdict on answers that are classes; apart from them, as judging needs statistics and answering does not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import RuntimeFault, first_fault
from ..statistics.drops import Verdict, non_inferiority
from ..statistics.flips import Flips, FlipVerdict, judge_flips
from ..statistics.floors import Floor, accuracy_floor
from ..statistics.groups import Group, GroupsVerdict, describe_worst, judge_groups, table_of
from ..words import percent
from .arrays import Arrays
from .classes import ANSWER, LABEL, RIGHT
from .task import Budgets

__all__ = ["Verification", "by_class", "by_group", "judge_classes"]


@dataclass(frozen=True)
class Verification:
    """The gate's verdict and the two accuracies behind it, as fractions.

    ``b``: teacher right and package wrong; ``c``: the reverse. ``relabelled`` counts samples whose label differs from
    the one that the package was built with. ``floor`` is the verdict on the package's own accuracy, if it has a budget,
    ``flips`` how many answers are others than the teacher's, and ``flip_budget`` the verdict on that. ``classes`` is
    what each class lost and gained, and ``class_budget`` the verdict on that.
    """

    verdict: Verdict
    teacher_accuracy: float
    accuracy: float
    b: int
    c: int
    relabelled: int
    flips: Flips
    classes: Tuple[Group, ...]
    floor: Optional[Floor] = None
    flip_budget: Optional[FlipVerdict] = None
    class_budget: Optional[GroupsVerdict] = None
    reference: str = "teacher"

    def failure(self) -> Optional[RuntimeFault]:
        """The error that the verdicts amount to, a miss before an undecided one, or ``None`` if all pass."""
        judged = (self.verdict, self.floor, self.flip_budget, self.class_budget)
        faults = [verdict.failure() for verdict in judged if verdict]
        return first_fault(faults)

    def to_dict(self) -> Dict[str, object]:
        """The result as JSON-ready values."""
        held = replace(self, classes=(), class_budget=None)
        budget = self.class_budget.to_dict() if self.class_budget else None
        return {**asdict(held), "classes": table_of(self.classes), "class_budget": budget}

    def lines(self, noun: str) -> List[str]:
        """The result for people."""
        lines = [
            f"{self.reference} {percent(self.teacher_accuracy)}, package {percent(self.accuracy)} of "
            f"{self.verdict.images} {noun} ({self.b} only the {self.reference} has right, {self.c} only the package)",
            self.verdict.explain(),
        ]
        if self.floor:
            lines.append(self.floor.explain())
        lines.append(self.flip_budget.explain() if self.flip_budget else self.flips.describe())
        worst = describe_worst(self.classes, "classes")
        lines += [self.class_budget.explain()] if self.class_budget else [worst] if worst else []
        if self.relabelled:
            lines.append(f"{self.relabelled} {noun} have another label than when the package was built")
        return lines


def judge_classes(
    teacher: Arrays, package: Arrays, labels: Sequence[str], budgets: Budgets, changed: int
) -> Verification:
    """As ``Classes.judge``, of the classes ``labels``.

    Raises:
        InputError: a budget out of range.
    """
    by_teacher, right = teacher[RIGHT], package[RIGHT]
    b, c, n = int((by_teacher & ~right).sum()), int((right & ~by_teacher).sum()), len(right)
    floor = accuracy_floor(int(right.sum()), n, budgets.min_accuracy, budgets.confidence)
    flips = Flips(b, c, int((teacher[ANSWER] != package[ANSWER]).sum()), n)
    classes, most = by_class(teacher, package, labels), budgets.max_class_drop
    held = judge_groups(classes, [most] * len(classes), "classes", budgets.confidence) if most else None
    return Verification(
        verdict=non_inferiority(b, c, n, budgets.max_drop, budgets.confidence),
        teacher_accuracy=float(by_teacher.mean()),
        accuracy=float(right.mean()),
        b=b,
        c=c,
        relabelled=changed,
        flips=flips,
        classes=classes,
        class_budget=held,
        floor=floor if budgets.min_accuracy else None,
        flip_budget=judge_flips(flips, budgets.max_flips, budgets.confidence) if budgets.max_flips else None,
    )


def by_class(teacher: Arrays, package: Arrays, labels: Sequence[str]) -> Tuple[Group, ...]:
    """What each class has lost and gained, by the statistics of two models on the same samples."""
    return by_group(teacher[RIGHT], package[RIGHT], package[LABEL], labels)


def by_group(teacher: np.ndarray, package: np.ndarray, group: np.ndarray, names: Sequence[str]) -> Tuple[Group, ...]:
    """What each group of samples has lost and gained. ``teacher``, ``package``: bool[N], right or wrong; ``group``:
    int[N], its number among ``names``, under 0 for none."""
    kinds = (group >= 0, teacher, package, teacher & ~package, package & ~teacher)
    counts = [np.bincount(group[kind], minlength=len(names)).tolist() for kind in kinds]
    return tuple(Group(name, *(of[k] for of in counts)) for k, name in enumerate(names))
