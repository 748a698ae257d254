"""Which image goes to which split: stratified by class, the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Indices", "Part", "stratified", "without"]

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
    every class is drawn from at least once.
    """
    classes, sizes = np.unique(strata, return_counts=True)
    shares = _allot(sizes.astype(np.int64), np.maximum(sizes - leave, 0).astype(np.int64), count)
    drawn = [rng.permutation(np.flatnonzero(strata == c))[:n] for c, n in zip(classes, shares, strict=True)]
    return np.sort(np.concatenate([np.empty(0, np.int64), *drawn]).astype(np.int64))


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
