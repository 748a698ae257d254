"""A budget for each of several groups of samples: of each class, or of each slice. Standard library only.

*pass* takes every group's upper bound, each at the confidence asked for. It needs no correction: a pass is wrong only
where some group is over its budget, and then that group's own test has to be wrong (an intersection-union test; Berger
1982, Technometrics 24:295). *fail* takes one group's lower bound, and with many groups some are over by chance: so
these are tested by Holm's procedure (1979, Scandinavian Journal of Statistics 6:65), which keeps the chance that any
group is called over its budget wrongly at most ``1 - confidence``, however many there are.

Groups are small, and where no sample was gained the exact bound of those lost (Clopper and Pearson) is the wider one.
Where samples come in clusters (``clustered``), or a group's metric counts nothing (``scored``), bounds are given that
were resampled; these end at ``LEVELS``, so a lower bound that would have to be surer shows nothing.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import lru_cache
from typing import Dict, List, Optional, Sequence, Set, Tuple, TypeVar, Union

from ..errors import BudgetMissed, InputError, RuntimeFault, Undecided
from ..records import record
from ..words import line, points
from .drops import Decision, drop_lower_bound, drop_upper_bound, non_inferiority
from .floors import accuracy_upper_bound, fewest_samples
from .resampled import LEVELS, Bounds
from .scored import Scored

__all__ = ["Group", "GroupVerdict", "GroupsVerdict", "Judged", "by_drop", "describe_worst", "judge_groups", "table_of"]

Judged = Union["Group", Scored]
"""What is judged with others of its kind: with counts, or with bounds that were resampled."""
Some = TypeVar("Some", "Group", Scored, Judged)
NAMED, LISTED = 3, 1000
"""Groups that a sentence names, and that a table holds."""


@record
class Group:
    """Some samples, and of how many the teacher (``teacher``) and the package (``package``) are right.

    ``lost``: right by the teacher alone; ``gained``: by the package alone.
    """

    name: str
    samples: int
    teacher: int
    package: int
    lost: int
    gained: int

    @property
    def drop(self) -> float:
        """Of the share that is right; 0 where there are no samples."""
        return (self.lost - self.gained) / self.samples if self.samples else 0.0

    def describe(self) -> str:
        """The counts, for people."""
        seen = f"{self.lost} lost, {self.gained} gained of {self.samples}"
        return f"{line(repr(self.name))} {points(self.drop)} ({seen})"

    def least(self, limit: float, confidence: float) -> int:
        """Samples, at least, to show ``limit`` even if none is lost."""
        return fewest_samples(1 - limit, confidence)


@record
class GroupVerdict:
    """Whether one group keeps to its budget; ``upper`` is at the confidence asked for, ``lower`` at Holm's.

    ``samples_needed``: of this group, so many as are likely to end in a pass.
    """

    group: Judged
    verdict: Decision
    lower: float
    upper: float
    max_drop: float
    samples_needed: Optional[int] = None

    def missing(self) -> str:
        """The group, and how many more samples of it would decide, or why nothing can be said of it."""
        if isinstance(self.group, Scored) and self.group.why:
            return f"{line(repr(self.group.name))}: {self.group.why}"
        seen = f"{self.group.describe()}, at most {points(self.upper)}"
        if self.samples_needed is None:
            return f"{seen}: too near its budget for more samples to help"
        return f"{seen}: about {self.samples_needed - self.group.samples} more would decide"


@record
class GroupsVerdict:
    """Whether every group keeps to its budget; ``noun``: what they are, as in ``classes``. The worst come first."""

    verdict: Decision
    noun: str
    groups: Tuple[GroupVerdict, ...]
    confidence: float

    @property
    def cause(self) -> GroupVerdict:
        """The worst of the groups that have the verdict of all: a larger drop may well be of one that passes."""
        return next(one for one in self.groups if one.verdict == self.verdict)

    def explain(self) -> str:
        """The verdict as a sentence that names the worst groups, and what would decide it where it is undecided."""
        level, count = f"at {self.confidence:.4g} confidence", len(self.groups)
        found = [one for one in self.groups if one.verdict == self.verdict]
        if self.verdict == "pass":
            worst = found[0]
            return (
                f"all {count} {self.noun} keep to their budgets {level}; the nearest: {worst.group.describe()}, "
                f"at most {points(worst.upper)}, budget {points(worst.max_drop)}"
            )
        if self.verdict == "fail":
            each = [
                f"{one.group.describe()}, at least {points(one.lower)}, budget {points(one.max_drop)}" for one in found
            ]
            return f"{len(found)} of {count} {self.noun} drop too far {level} (Holm, over {count}): {_first(each)}"
        return f"{len(found)} of {count} {self.noun} are undecided {level}: {_first([o.missing() for o in found])}"

    def failure(self) -> Optional[RuntimeFault]:
        """The error that this verdict amounts to, or ``None`` if it is a pass."""
        kinds = {"fail": BudgetMissed, "undecided": Undecided}
        return kinds[self.verdict](self.explain()) if self.verdict in kinds else None

    def to_dict(self) -> Dict[str, object]:
        """The verdicts as JSON-ready values, those of the ``LISTED`` worst groups, and how many are left out."""
        listed = [asdict(one) for one in self.groups[:LISTED]]
        return {**asdict(self), "groups": listed, "left_out": len(self.groups) - len(listed)}


def judge_groups(
    groups: Sequence[Judged],
    limits: Sequence[float],
    noun: str,
    confidence: float,
    bounds: Sequence[Bounds] = (),
) -> GroupsVerdict:
    """The verdict on ``groups``, each with its own of ``limits``, the largest drop (a fraction) that it may have.
    ``bounds``: of each one's drop, where its samples come in clusters or are not counted.

    Raises:
        InputError: no groups, a limit outside 0..1, or a confidence outside 0.5..1.
    """
    if not groups:
        raise InputError(f"there are no {noun} to judge")
    for limit in limits:
        if not 0 < limit < 1:
            raise InputError(f"the budget of {noun} is {limit}; must be over 0 and under 1 (0.05 is five points)")
    resampled = bounds or (None,) * len(groups)
    over = _over(groups, limits, resampled, confidence)
    level = 1 - (1 - confidence) / max(len(groups) - len(over) + 1, 1)
    judged = []
    for i, (group, limit) in enumerate(zip(groups, limits)):
        upper = _upper(group, resampled[i], confidence)
        verdict: Decision = "fail" if i in over else "pass" if upper <= limit else "undecided"
        needed = _needed(group, limit, upper, resampled[i], confidence) if verdict == "undecided" else None
        lower = over.get(i) if i in over else _lower(group, resampled[i], level)
        judged.append(GroupVerdict(group, verdict, lower or 0.0, upper, limit, needed))
    judged.sort(key=lambda one: (one.max_drop - one.group.drop, one.max_drop - one.upper, one.group.name))
    seen: Set[Decision] = {one.verdict for one in judged}
    whole: Decision = "fail" if "fail" in seen else "undecided" if "undecided" in seen else "pass"
    return GroupsVerdict(whole, noun, tuple(judged), confidence)


def table_of(groups: Sequence[Judged]) -> Dict[str, object]:
    """``groups`` as JSON-ready values, the ``LISTED`` worst first, and how many are left out."""
    listed = [asdict(group) for group in by_drop(groups)[:LISTED]]
    return {"groups": listed, "left_out": len(groups) - len(listed)}


def describe_worst(groups: Sequence[Judged], noun: str) -> Optional[str]:
    """The groups that drop most, for people; ``None`` where none drops."""
    worst = [group.describe() for group in by_drop(groups) if group.drop > 0]
    return f"{noun} that drop: {_first(worst)}; of {len(groups)}" if worst else None


def by_drop(groups: Sequence[Some]) -> List[Some]:
    """``groups``, the largest drop first."""
    return sorted(groups, key=lambda group: (-group.drop, -getattr(group, "lost", 0), group.name))


def _over(
    groups: Sequence[Judged], limits: Sequence[float], bounds: Sequence[Optional[Bounds]], confidence: float
) -> Dict[int, float]:
    """The groups that are over their limits by Holm's procedure: number → the lower bound that showed it.

    Step by step, each at the level of those that are left: whose p-value is small enough is whose bound is above.
    """
    over: Dict[int, float] = {}
    while len(over) < len(groups):
        level = 1 - (1 - confidence) / (len(groups) - len(over))
        found = {}
        for i, group in enumerate(groups):
            # A drop that is seen to keep to the limit is never shown to be over it.
            if i not in over and group.drop > limits[i]:
                lower = _lower(group, bounds[i], level)
                if lower > limits[i]:
                    found[i] = lower
        if not found:
            break
        over.update(found)
    return over


def _upper(group: Judged, bounds: Optional[Bounds], confidence: float) -> float:
    if not group.samples:
        return 1.0
    if bounds:
        return bounds.at(confidence)[1]
    if isinstance(group, Scored):
        return 1.0
    return _exact_upper(group.lost, group.gained, group.samples, confidence)


def _lower(group: Judged, bounds: Optional[Bounds], confidence: float) -> float:
    if not group.samples or (bounds and confidence > LEVELS[-1]):
        return -1.0
    if bounds:
        return bounds.at(confidence)[0]
    if isinstance(group, Scored):
        return -1.0
    return _exact_lower(group.lost, group.gained, group.samples, confidence)


@lru_cache(maxsize=4096)
def _exact_upper(lost: int, gained: int, samples: int, confidence: float) -> float:
    bound = drop_upper_bound(lost, gained, samples, confidence)
    return bound if gained else max(bound, accuracy_upper_bound(lost, samples, confidence))


@lru_cache(maxsize=4096)
def _exact_lower(lost: int, gained: int, samples: int, confidence: float) -> float:
    return drop_lower_bound(lost, gained, samples, confidence)


def _needed(group: Judged, limit: float, upper: float, bounds: Optional[Bounds], confidence: float) -> Optional[int]:
    """The samples of this group with which it is likely to pass, more than there are."""
    if isinstance(group, Scored) and group.why:
        return None
    least = max(group.least(limit, confidence), group.samples + 1)
    if bounds and group.drop < limit:  # a bound comes closer with the root of the samples
        return max(math.ceil(group.samples * ((upper - group.drop) / (limit - group.drop)) ** 2), least)
    if isinstance(group, Group) and not group.lost and not group.gained:
        return least
    if isinstance(group, Scored) or group.drop >= limit:
        return None
    seen = non_inferiority(group.lost, group.gained, group.samples, limit, confidence)
    return max(seen.images_needed or 0, least)


def _first(texts: Sequence[str]) -> str:
    return "; ".join(texts[:NAMED]) + (f"; and {len(texts) - NAMED} more" if len(texts) > NAMED else "")
