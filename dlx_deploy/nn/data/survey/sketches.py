"""What a picture looks like in a few bytes, and which pictures nearly look the same.

The hash is dHash (Krawetz, "Kind of Like That", 2013): whether each of 9 x 8 grey pixels is brighter than its left
neighbour. It finds copies that were resized, compressed again or changed in brightness; not those that were cut much,
mirrored or turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.progress import Progress
from dlx_deploy.runtime.untyped import Foreign

__all__ = ["BITS", "RADIUS", "Sketch", "Sketches", "near_pairs", "sketch"]

BITS = 64
RADIUS = 10
"""Bits of the hash that may differ: the usual choice for dHash. Of what it finds the small pictures are compared."""
_SIDE = 16
_ALIKE = 0.97
"""The least correlation of two small pictures that are nearly the same: above it lie, of photographs, copies only."""
_FLAT = 3.0
"""Standard deviation, of 0..255, up to which a small picture shows nothing."""
_BLOCK = 2048
_LOOKED_AT = 64
"""Candidates of one picture that are compared: a flat one has thousands."""


@dataclass(frozen=True)
class Sketch:
    """``bits``: bool[64], the hash. ``small``: uint8[16, 16], grey."""

    bits: NDArray[np.bool_]
    small: NDArray[np.uint8]


def sketch(picture: Foreign) -> Sketch:
    """That of Pillow's ``picture``."""
    grey = picture.convert("L")
    hashed = np.asarray(grey.resize((9, 8), 2, reducing_gap=2.0), np.uint8)
    small = np.asarray(grey.resize((_SIDE, _SIDE), 2, reducing_gap=2.0), np.uint8)
    return Sketch((hashed[:, 1:] > hashed[:, :-1]).reshape(-1), small)


@dataclass(frozen=True)
class Sketches:
    """Those of N pictures. ``signs``: float32[N, 64], 1 and -1, so that products of matrices count equal bits.

    ``small``: float32[N, 256], of mean 0 and length 1, so that their product is the correlation; 0 where flat.
    """

    signs: NDArray[np.float32]
    small: NDArray[np.float32]

    @staticmethod
    def of(sketches: Sequence[Sketch]) -> Sketches:
        """``sketches`` as arrays."""
        bits = np.array([s.bits for s in sketches], bool).reshape(-1, BITS)
        small = np.array([s.small for s in sketches], np.float32).reshape(-1, _SIDE**2)
        small = small - small.mean(axis=1, keepdims=True)
        length = np.sqrt((small**2).sum(axis=1, keepdims=True))
        shown = length > _FLAT * _SIDE
        small = np.where(shown, small / np.maximum(length, 1e-6), 0)
        return Sketches(np.where(bits, 1, -1).astype(np.float32), small.astype(np.float32))


def near_pairs(queries: Sketches, others: Sketches, progress: Progress) -> list[tuple[int, int, int]]:
    """For each query that nearly is one of the ``others``: its row, the row of the one most like it, bits that differ.

    All pairs are compared, in blocks: 10,000 with 50,000 take about two seconds. Flat pictures have no pair.
    """
    best: dict[int, tuple[float, int, int]] = {}
    total = len(queries.signs) * len(others.signs)
    done = 0
    for top in range(0, len(queries.signs), _BLOCK):
        rows = queries.signs[top : top + _BLOCK]
        for left in range(0, len(others.signs), _BLOCK):
            columns = others.signs[left : left + _BLOCK]
            agree = rows @ columns.T
            for row in np.flatnonzero(agree.max(axis=1) >= BITS - 2 * RADIUS):
                _look(queries, others, (top + int(row), left), agree[row], best)
            done += len(rows) * len(columns)
            progress(done, total, "pictures compared")
    return [(row, at, distance) for row, (_, at, distance) in sorted(best.items())]


def _look(
    queries: Sketches,
    others: Sketches,
    place: tuple[int, int],
    agree: NDArray[np.float32],
    best: dict[int, tuple[float, int, int]],
) -> None:
    """The candidates of one row in one block: the most alike goes into ``best`` (row → likeness, column, distance)."""
    row, left = place
    near = np.flatnonzero(agree >= BITS - 2 * RADIUS)
    near = near[np.argsort(-agree[near], kind="stable")[:_LOOKED_AT]]
    alike = others.small[left + near] @ queries.small[row]
    at = int(np.argmax(alike))
    likeness = float(alike[at])
    if likeness >= _ALIKE and likeness > best.get(row, (0.0, 0, 0))[0]:
        best[row] = likeness, left + int(near[at]), int((BITS - agree[near[at]]) // 2)
