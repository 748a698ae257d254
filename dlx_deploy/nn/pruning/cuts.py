"""Views that cut channels into equal parts: heads of attention, of which whole ones go, or parts that lose the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cut", "components"]

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """Channels that a view in ``module`` cut: int64[..., parts, places], of which the last ``axes`` are of the cut.

    Which of two things can go is known once the network has run: where something mixes all places of a part (the
    products of attention do), whole parts; else the same places of all parts.
    """

    module: str
    labels: Labels
    axes: int

    def has_heads(self, class_of: Labels) -> bool:
        """Whether all places of each part go together."""
        classes = class_of[self.labels]
        return bool((classes == classes[..., :1]).all())

    def ties(self, heads: bool) -> Iterator[tuple[Labels, Labels]]:
        """Pairs of labels that go together or not at all: of parts other than heads, the same places."""
        for axis in range(-self.axes, -2 if heads else -1):
            one, other = np.broadcast_arrays(self.labels, self.labels.take([0], axis))
            yield one[one != other], other[one != other]

    def count(self, kept: NDArray[np.bool_]) -> int:
        """How many parts have a place that stays; ``kept`` is a bool per label."""
        return int(kept[self.labels.reshape(-1, *self.labels.shape[-2:])[0]].any(1).sum())


def components(count: int, ties: Sequence[tuple[Labels, Labels]]) -> Labels:
    """int64[count]: for each number the smallest that a chain of ``ties`` leads to.

    The last number stands for what holds no channel, which is -1 in the ties.
    """
    none = np.zeros(0, dtype=np.int64)
    one, other = (np.concatenate([none, *(tie[side] for tie in ties)]) % count for side in (0, 1))
    root = np.arange(count, dtype=np.int64)
    while True:
        low = np.minimum(root[one], root[other])
        new = root.copy()
        np.minimum.at(new, root[one], low)
        np.minimum.at(new, root[other], low)
        while not np.array_equal(new[new], new):
            new = new[new]
        if np.array_equal(new, root):
            return root
        root = new
