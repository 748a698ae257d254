"""Samples that come in groups (one patient, one scene, one author): the column that says it, on both sides.

It is a target: a task's ``record`` and ``statistic`` pass it on, so whoever judges draws whole groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Sequence, Tuple

import numpy as np

from ..errors import InputError
from ..words import GROUP_COLUMN, GROUPS, SAMPLES
from .arrays import Arrays, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..statistics.resampled import Drawn
    from ..untyped import Array

__all__ = [
    "GROUP",
    "drawn_of",
    "group_columns",
    "group_of",
    "groups_of",
    "numbered",
    "numbered_groups",
    "of_known",
    "together",
]

GROUP = GROUP_COLUMN
"""int64[n]: the number of each sample's group."""


def group_columns(grouped: bool) -> Tuple[Tensor, ...]:
    """The column of a reference table, where samples are ``grouped``."""
    return (Tensor(GROUP, "int64", ()),) if grouped else ()


def group_of(targets: Arrays) -> Dict[str, Array]:
    """The groups among ``targets``, if there are some."""
    return {GROUP: np.asarray(targets[GROUP], np.int64)} if GROUP in targets else {}


def groups_of(statistic: Arrays) -> NDArray[np.int64]:
    """int64[n]: what is drawn as one; each sample alone where there are no groups."""
    groups = statistic.get(GROUP)
    if groups is not None:
        return np.asarray(groups, np.int64)
    return np.arange(len(next(iter(statistic.values()))), dtype=np.int64)


def drawn_of(statistic: Arrays) -> Drawn:
    """How many units there are, and what they are."""
    from ..statistics.clustered import count_groups  # what predicts judges nothing
    from ..statistics.resampled import Drawn

    groups = groups_of(statistic)
    return Drawn(count_groups(groups), GROUPS if GROUP in statistic else SAMPLES)


def of_known(columns: Arrays, known: NDArray[np.bool_]) -> Dict[str, Array]:
    """The groups of samples, of which ``columns`` are the rows of the reference table for those that are ``known``,
    bool[n]; the others are each a group of their own."""
    if GROUP not in columns:
        return {}
    groups = np.empty(len(known), np.int64)
    groups[known] = np.unique(columns[GROUP], return_inverse=True)[1]
    groups[~known] = len(known) + np.arange(int((~known).sum()))
    return {GROUP: groups}


def numbered_groups(names: Sequence[str]) -> NDArray[np.int64]:
    """int64[n], the number of the group that each of ``names`` is of; "": one of its own.

    Raises:
        InputError: two names differ in their writing only.
    """
    from .labels import alike  # what predicts needs none of it

    pair = alike({name for name in names if name})
    if pair:
        raise InputError(f"the groups {pair[0]!a} and {pair[1]!a} differ in their writing only; make them one")
    numbers = numbered(names)[0]
    alone = np.array([not name for name in names], np.bool_)
    numbers[alone] = len(names) + np.arange(int(alone.sum()))
    return numbers


def numbered(values: Sequence[str]) -> Tuple[NDArray[np.int64], List[str]]:
    """int64[n], the place of each of ``values`` among the sorted names that there are, and these."""
    names = sorted(set(values))
    place = {name: i for i, name in enumerate(names)}
    return np.array([place[value] for value in values], np.int64), names


def together(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[n]: two samples are of one group where either says so, or a third is of one with both: a list that splits
    what is one group in the package makes no verdict surer than its build's."""
    above = list(range(len(one)))

    def first(i: int) -> int:
        while above[i] != i:
            above[i] = above[above[i]]
            i = above[i]
        return i

    for groups in (one.tolist(), other.tolist()):
        seen: Dict[int, int] = {}
        for i, group in enumerate(groups):
            above[first(i)] = first(seen.setdefault(group, i))
    return np.array([first(i) for i in range(len(above))], np.int64)
