"""Answers that are right or wrong, of samples that come in groups: whole groups are drawn, never single samples.

Those of one patient, scene or author err alike. A bound that takes each for one of its own has the width of more
samples than there are, so Tango's score and the bounds of Clopper and Pearson are none here. What is counted of each
group (right ones, and all) is resampled as ``bootstrap`` has it, its extra unit being a usual group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Tuple

import numpy as np

from ..words import GROUPS
from .bootstrap import resample_drops, resample_value
from .resampled import Bounds, Drops

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["by_groups", "count_groups", "grouped_drops", "grouped_share"]


def by_groups(counts: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """What samples count, int64[n, ...], summed by group, int64[g, ...]; ``groups``: int64[n], the number of each."""
    _, place = np.unique(groups, return_inverse=True)
    sums = np.zeros((int(place.max(initial=-1)) + 1, *counts.shape[1:]), np.int64)
    np.add.at(sums, place, counts)
    return sums


def count_groups(groups: NDArray[np.int64]) -> int:
    """How many there are."""
    return len(np.unique(groups))


def grouped_drops(teacher: NDArray[np.bool_], package: NDArray[np.bool_], groups: NDArray[np.int64]) -> Drops:
    """How far the share that is right drops: bool[n] of the same samples, by ``groups``, int64[n].

    Raises:
        InputError: there are no samples.
    """
    ours, theirs = (_counted(right, groups) for right in (teacher, package))
    drops = resample_drops((ours, theirs), _extremes(ours), _share)
    return Drops(drops.teacher, drops.package, drops.units, drops.bounds, GROUPS)


def grouped_share(right: NDArray[np.bool_], groups: NDArray[np.int64]) -> Tuple[float, Bounds]:
    """The share of samples that are ``right``, bool[n], and its bounds.

    Raises:
        InputError: there are no samples.
    """
    counts = _counted(right, groups)
    return resample_value(counts, _extremes(counts), _share)


def _counted(right: NDArray[np.bool_], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[g, 2]: of each group those that are right, and all."""
    return by_groups(np.stack([right, np.ones_like(right)], axis=1).astype(np.int64), groups)


def _extremes(counts: NDArray[np.int64]) -> Tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A usual group that is all right, and one that is all wrong."""
    size = -(-int(counts[:, 1].sum()) // max(len(counts), 1))
    return np.array([size, size], np.int64), np.array([0, size], np.int64)


def _share(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    share: NDArray[np.float64] = sums[:, 0] / sums[:, 1]
    return share
