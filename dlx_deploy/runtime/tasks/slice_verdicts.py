"""The verdict on slices; apart from their budgets, as judging needs statistics and reading a package does not."""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ..errors import InputError, RuntimeFault, Undecided, first_fault
from ..records import record, replace
from ..statistics.groups import Group, GroupsVerdict, Judged, describe_worst, judge_groups, table_of
from ..statistics.resampled import UNKNOWN, Bounds
from ..statistics.scored import Scored
from ..words import line
from .arrays import Arrays
from .slices import column_of
from .task import Budgets, Outputs

__all__ = ["SlicesJudged", "judge_slices"]


@record
class SlicesJudged:
    """What each slice has lost and gained, or its metric, and the verdict on those that have budgets. ``missing``: why
    some that have one were not judged; empty where all were."""

    groups: Tuple[Judged, ...]
    verdict: Optional[GroupsVerdict] = None
    missing: str = ""

    def failure(self) -> Optional[RuntimeFault]:
        """The error that it amounts to, or ``None`` if every slice that has a budget keeps to it."""
        faults = [self.verdict.failure() if self.verdict else None, Undecided(self.missing) if self.missing else None]
        return first_fault(faults)

    def to_dict(self) -> Dict[str, object]:
        """The slices as JSON-ready values, the worst first."""
        budget = self.verdict.to_dict() if self.verdict else None
        return {**table_of(self.groups), "budget": budget, "missing": self.missing}

    def lines(self) -> List[str]:
        """The result for people."""
        worst = describe_worst(self.groups, "slices")
        lines = [self.verdict.explain()] if self.verdict else [worst] if worst else []
        return [*lines, *([self.missing] if self.missing else [])]


def judge_slices(
    outputs: Outputs, pair: Tuple[Arrays, Arrays], columns: Mapping[str, Sequence[str]], budgets: Budgets
) -> Optional[SlicesJudged]:
    """The verdict on each slice, by the statistics of two models, the ``pair``; ``None`` where nobody asks for slices.

    ``columns``: what each sample has in each; those that the samples do not come with are not there. A slice of the
    build with a budget that no sample is of is undecided.

    Raises:
        InputError: answers are not judged by slice, or a sample has nothing in a column.
    """
    asked = budgets.slices
    if not asked.columns:
        return None
    count = getattr(outputs, "by_slice", None)
    if count is None:
        raise InputError("answers of this task are not judged by slice; leave their budgets out: --max-slice-drop 0")
    given = {name: columns[name] for name in asked.columns if name in columns}
    for name, values in given.items():
        if "" in values:
            raise InputError(
                f"some samples have nothing in the column {name!r}, and slices are judged by it; fill it in"
            )
    groups, bounds = count(*pair, given, asked)
    missing = [name for name in asked.columns if name not in columns and asked.asks(name)]
    there = {group.name for group in groups}
    gone = [name for name, limit in asked.named.items() if limit and column_of(name) in columns and name not in there]
    verdict = _verdict(groups, bounds, gone, budgets)
    return SlicesJudged(groups, verdict, _explain(missing) if missing else "")


def _verdict(
    groups: Sequence[Judged], bounds: Sequence[Bounds], gone: Sequence[str], budgets: Budgets
) -> Optional[GroupsVerdict]:
    """On those of ``groups`` that have budgets, and on those that are ``gone``."""
    asked = budgets.slices
    kept = [i for i, group in enumerate(groups) if asked.of(group.name)]
    judged = [*(groups[i] for i in kept), *(_unseen(name, groups[0]) for name in gone)]
    if not judged:
        return None
    of_drops = [*(bounds[i] for i in kept), *(UNKNOWN for _ in gone)] if bounds else ()
    return judge_groups(judged, [asked.of(one.name) for one in judged], "slices", budgets.confidence, of_drops)


def _unseen(name: str, other: Judged) -> Judged:
    """A slice that no sample is of, told as the ``other`` one."""
    if isinstance(other, Scored):
        return replace(other, name=name, samples=0, teacher=None, package=None, why="no sample is of it; give some")
    return Group(name, 0, 0, 0, 0, 0)


def _explain(missing: Sequence[str]) -> str:
    shown = ", ".join(line(repr(name)) for name in missing)
    return (
        f"slices of {shown} are undecided: the samples that were given do not come with "
        f"{'these columns' if len(missing) > 1 else 'this column'}; give the list (.csv, .jsonl) that has "
        f"{'them' if len(missing) > 1 else 'it'}, or judge without: --max-slice-drop 0"
    )
