"""Which image goes to which split: stratified by class, the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Indices", "Part", "grouped", "stratified", "without"]

Indices = npt.NDArray[np.int64]
"""int64[N]: positions in a list of images, ascending."""


@dataclass(frozen=True)
class Part:
    """A split: positions in the source's split ``origin``."""

    origin: str
    positions: Indices


def stratified(strata: Indices, count: int, rng: np.random.Generator, *, leave: int = 0) -> Indices:
    """``count`` positions of ``strata``, ascending, each class by its share (largest remainder).

    At least ``leave`` of every class stay behind, so fewer than ``count`` may come back. Where ``count`` allows,
    every class is drawn from at least once; where it does not, which ones are is drawn too.
    """
    classes, sizes = np.unique(strata, return_counts=True)
    shares = np.zeros(len(classes), np.int64)
    order = rng.permutation(len(classes)) if count < len(classes) else np.arange(len(classes))
    shares[order] = _allot(sizes[order].astype(np.int64), np.maximum(sizes[order] - leave, 0).astype(np.int64), count)
    drawn = [rng.permutation(np.flatnonzero(strata == c))[:n] for c, n in zip(classes, shares, strict=True)]
    return np.sort(np.concatenate([np.empty(0, np.int64), *drawn]).astype(np.int64))


def grouped(strata: Indices, groups: Indices, count: int, rng: np.random.Generator, *, leave: int = 0) -> Indices:
    """About ``count`` positions of ``strata``, ascending, in whole groups: as near to each class's share as they come.

    ``groups``: int64[N], the group of each. Large groups are asked first, a group is taken where the counts of its
    classes come nearer to what is wanted. At least ``leave`` of every class stay behind; a class of which nothing was
    taken so, and that has a group to spare, gives its smallest one.
    """
    numbers, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    members = np.split(order, np.cumsum(sizes)[:-1])
    held = [np.unique(strata[rows], return_counts=True) for rows in members]
    classes, totals = np.unique(strata, return_counts=True)
    place = {int(c): i for i, c in enumerate(classes)}
    wanted = totals * (count / max(len(strata), 1))
    room, taken = totals - leave, np.zeros(len(numbers), bool)

    def take(group: int, forced: bool = False) -> None:
        at, counts = [place[int(c)] for c in held[group][0]], held[group][1]
        nearer = bool(((wanted[at] - counts) ** 2).sum() < (wanted[at] ** 2).sum()) or forced
        if not taken[group] and nearer and bool((room[at] >= counts).all()):
            taken[group] = True
            wanted[at] -= counts
            room[at] -= counts

    shuffled = rng.permutation(len(numbers))
    ranked = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    for group in ranked:
        take(int(group))
    empty = set(classes[(room == totals - leave) & (totals > leave)].tolist()) if count >= len(classes) else set()
    for group in ranked[::-1]:
        if empty & set(held[group][0].tolist()):
            take(int(group), forced=True)
            empty -= set(held[group][0].tolist()) if taken[group] else set()
    return np.flatnonzero(taken[inverse]).astype(np.int64)


def without(length: int, taken: Indices) -> Indices:
    """The positions ``0..length - 1`` that are not in ``taken``, ascending."""
    keep = np.ones(length, dtype=bool)
    keep[taken] = False
    return np.flatnonzero(keep).astype(np.int64)


def _allot(sizes: Indices, room: Indices, count: int) -> Indices:
    """How many of each class: proportional to ``sizes``, at most ``room``, ``count`` in all where room allows."""
    count = min(count, int(room.sum()))
    ideal = sizes * (count / max(int(sizes.sum()), 1))
    shares: Indices = np.minimum(np.floor(ideal).astype(np.int64), room)
    if count >= np.count_nonzero(room):
        shares = np.maximum(shares, np.minimum(room, 1))
    while (gap := count - int(shares.sum())) != 0:
        step = 1 if gap > 0 else -1
        movable = (shares < room) if gap > 0 else (shares > 1)
        shares[np.argmax(np.where(movable, step * (ideal - shares), -np.inf))] += step
    return shares
