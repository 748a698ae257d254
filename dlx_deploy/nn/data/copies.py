"""Images and texts that are in the data more than once, compared as the network sees them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

__all__ = ["ORDER", "Copies", "Row", "digests", "find_copies"]

ORDER = ("test", "validation", "train", "calibration")
"""What stays where an image is in several splits: the first of these. Calibration may have what train has."""

Row = tuple[str, int]
"""A split and a row of it."""


@dataclass(frozen=True)
class Copies:
    """``across``: (row, the row of an earlier split of ``ORDER`` that it equals). ``repeated``: test images that the
    test split has before already. ``contradictory``: different images that have several targets; those of calibration
    need none."""

    across: tuple[tuple[Row, Row], ...]
    repeated: int
    contradictory: int


def digests(rows: NDArray[Any]) -> list[bytes]:
    """One per row of images uint8[N, H, W, C] or tokens int32[N, L], equal where the pixels or tokens are."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def find_copies(by_split: Mapping[str, Sequence[bytes]], target: Callable[[Row], Hashable]) -> Copies:
    """The copies among the splits of ``by_split``: digests by split, of calibration where it is none of train.

    Linear; ``target`` is asked of copies alone.
    """
    first: dict[bytes, Row] = {}
    meanings: dict[bytes, set[Hashable]] = defaultdict(set)
    across: list[tuple[Row, Row]] = []
    repeated = 0
    for split in ORDER:
        for row, digest in enumerate(by_split.get(split, ())):
            origin = first.setdefault(digest, (split, row))
            if origin == (split, row):
                continue
            if split == "calibration":
                if origin[0] not in (split, "train"):
                    across.append(((split, row), origin))
                continue
            meanings[digest] |= {target(origin), target((split, row))}
            if origin[0] != split:
                across.append(((split, row), origin))
            elif split == "test":
                repeated += 1
    return Copies(tuple(across), repeated, sum(len(m) > 1 for m in meanings.values()))
