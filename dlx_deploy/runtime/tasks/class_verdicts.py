"""The verdict on answers that are classes; apart from them, as judging needs statistics and answering does not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from ..errors import RuntimeFault, first_fault
from ..records import record, replace
from ..statistics.clustered import grouped_drops, grouped_share
from ..statistics.drops import Verdict, non_inferiority
from ..statistics.flips import Flips, FlipVerdict, judge_flips
from ..statistics.floors import Floor, accuracy_floor
from ..statistics.groups import Group, GroupsVerdict, describe_worst, judge_groups, table_of
from ..statistics.resampled import UNKNOWN, Bounds, DropVerdict, FloorVerdict, judge_drops, judge_value
from ..words import percent
from .arrays import Arrays
from .classes import ANSWER, LABEL, RIGHT
from .grouped import GROUP, drawn_of, numbered
from .task import Budgets

__all__ = [
    "Verification",
    "bounds_by_group",
    "bounds_by_slice",
    "by_class",
    "by_group",
    "by_slice",
    "judge_classes",
]

NAME = "accuracy"
"""What drops is called so."""


@record
class Verification:
    """The gate's verdict and the two accuracies behind it, as fractions.

    ``b``: teacher right and package wrong; ``c``: the reverse. ``relabelled`` counts samples whose label differs from
    the one that the package was built with. ``floor`` is the verdict on the package's own accuracy, if it has a budget,
    ``flips`` how many answers are others than the teacher's, and ``flip_budget`` the verdict on that. ``classes`` is
    what each class lost and gained, and ``class_budget`` the verdict on that.
    """

    verdict: Union[Verdict, DropVerdict]
    teacher_accuracy: float
    accuracy: float
    b: int
    c: int
    relabelled: int
    flips: Flips
    classes: Tuple[Group, ...]
    floor: Optional[Union[Floor, FloorVerdict]] = None
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
            f"{self.flips.samples} {noun} ({self.b} only the {self.reference} has right, {self.c} only the package)",
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
    by_teacher, right, flipped = teacher[RIGHT], package[RIGHT], teacher[ANSWER] != package[ANSWER]
    b, c, n = int((by_teacher & ~right).sum()), int((right & ~by_teacher).sum()), len(right)
    flips, classes = Flips(b, c, int(flipped.sum()), n), by_class(teacher, package, labels)
    most, clustered, level = budgets.max_class_drop, GROUP in package, budgets.confidence
    drop: Union[Verdict, DropVerdict]
    if clustered:
        drop = judge_drops(grouped_drops(by_teacher, right, package[GROUP]), NAME, budgets.max_drop, level)
    else:
        drop = non_inferiority(b, c, n, budgets.max_drop, level)
    of_classes = bounds_by_group(teacher, package, package[LABEL], len(labels)) if clustered and most else ()
    held = judge_groups(classes, [most] * len(classes), "classes", level, of_classes) if most else None
    of_flips = grouped_share(flipped, package[GROUP])[1] if clustered and budgets.max_flips else None
    return Verification(
        verdict=drop,
        teacher_accuracy=float(by_teacher.mean()),
        accuracy=float(right.mean()),
        b=b,
        c=c,
        relabelled=changed,
        flips=flips,
        classes=classes,
        class_budget=held,
        floor=_floor(package, budgets) if budgets.min_accuracy else None,
        flip_budget=judge_flips(flips, budgets.max_flips, level, of_flips) if budgets.max_flips else None,
    )


def _floor(package: Arrays, budgets: Budgets) -> Union[Floor, FloorVerdict]:
    right = package[RIGHT]
    if GROUP not in package:
        return accuracy_floor(int(right.sum()), len(right), budgets.min_accuracy, budgets.confidence)
    value, bounds = grouped_share(right, package[GROUP])
    return judge_value(value, bounds, drawn_of(package), NAME, budgets.min_accuracy, budgets.confidence)


def by_class(teacher: Arrays, package: Arrays, labels: Sequence[str]) -> Tuple[Group, ...]:
    """What each class has lost and gained, by the statistics of two models on the same samples."""
    return by_group(teacher[RIGHT], package[RIGHT], package[LABEL], labels)


def by_group(teacher: np.ndarray, package: np.ndarray, group: np.ndarray, names: Sequence[str]) -> Tuple[Group, ...]:
    """What each group of samples has lost and gained. ``teacher``, ``package``: bool[N], right or wrong; ``group``:
    int[N], its number among ``names``, under 0 for none."""
    kinds = (group >= 0, teacher, package, teacher & ~package, package & ~teacher)
    counts = [np.bincount(group[kind], minlength=len(names)).tolist() for kind in kinds]
    return tuple(Group(name, *(of[k] for of in counts)) for k, name in enumerate(names))


def bounds_by_group(teacher: Arrays, package: Arrays, group: np.ndarray, count: int) -> Tuple[Bounds, ...]:
    """Bounds of the drop of each of ``count`` kinds of samples, whose number is ``group``, int[n], by the groups that
    samples come in; of one without samples they say nothing."""
    found = []
    for k in range(count):
        of = group == k
        some = grouped_drops(teacher[RIGHT][of], package[RIGHT][of], package[GROUP][of]).bounds if of.any() else UNKNOWN
        found.append(some)
    return tuple(found)


def by_slice(teacher: Arrays, package: Arrays, columns: Mapping[str, Sequence[str]]) -> Tuple[Group, ...]:
    """What each slice, ``COLUMN=VALUE``, has lost and gained; ``columns``: what each sample has in each."""
    found: List[Group] = []
    for column, values in columns.items():
        number, names = numbered(values)
        found += by_group(teacher[RIGHT], package[RIGHT], number, [f"{column}={name}" for name in names])
    return tuple(found)


def bounds_by_slice(teacher: Arrays, package: Arrays, columns: Mapping[str, Sequence[str]]) -> Tuple[Bounds, ...]:
    """Bounds of the drop of each slice of ``by_slice``, by the groups that samples come in; none where in none."""
    if GROUP not in package:
        return ()
    each = (numbered(values) for values in columns.values())
    return tuple(bounds for number, names in each for bounds in bounds_by_group(teacher, package, number, len(names)))
