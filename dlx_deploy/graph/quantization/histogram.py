"""Counts of a tensor's values over equal bins, in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Counts", "Histogram", "Values"]

MOST_BINS = 1 << 16
"""Where a histogram stops growing: 512 KiB a tensor. Only a first batch of nearly nothing leads there."""
NOTHING = 1e-35

Values = NDArray[np.float32]
Counts = NDArray[np.int64]


class Histogram:
    """Counts of values over equal bins, which grow in number as larger values come.

    ``edges`` are symmetric about 0, or from the smallest magnitude of the first batch on with ``magnitudes``.
    ``quick``: a value at an edge may count in the bin beside it, where nothing rests on being like ONNX Runtime's.
    """

    def __init__(self, bins: int, magnitudes: bool, most: int = MOST_BINS, quick: bool = False) -> None:
        self._bins, self._magnitudes, self._most = bins, magnitudes, most
        self._counted = _counted_quickly if quick else _counted
        self.counts: Counts = np.zeros(0, np.int64)
        self.edges: Values = np.zeros(0, np.float32)

    def update(self, values: Values, low: np.float32, high: np.float32) -> None:
        """See ``Observer``."""
        largest = np.float32(max(abs(low), abs(high)))
        if largest < NOTHING:  # too few numbers for bins; all such values fall into the middle one
            largest = np.float32(0)
        if self._magnitudes:
            self._count_magnitudes(np.absolute(values), largest)
        else:
            self._count(values, largest)

    def _count_magnitudes(self, magnitudes: Values, largest: np.float32) -> None:
        if not len(self.counts):
            try:
                self.counts, edges = np.histogram(magnitudes, bins=self._bins)
                self.edges = edges.astype(np.float32)
            except ValueError:  # from the smallest to the largest are fewer numbers than bins
                self.counts, self.edges = _counted(magnitudes, self._bins, np.float32(0), largest)
            return
        if largest > self.edges[-1]:
            self._reserve(int(_ratio(largest - self.edges[-1], self._width)) + 1, np.float32(0), largest)
            more = np.arange(self.edges[-1] + self._width, largest + self._width, self._width)
            self.edges = np.hstack((self.edges, more)).astype(np.float32)
        # As with ONNX Runtime, magnitudes below the first batch's smallest have no bin: the upper end is what counts.
        counts, _ = np.histogram(magnitudes, bins=self.edges)
        counts[: len(self.counts)] += self.counts
        self.counts = counts

    def _count(self, values: Values, largest: np.float32) -> None:
        if not len(self.counts):
            self.counts, self.edges = self._counted(values, self._bins, -largest, largest)
            self._reach = largest
            return
        if largest > self._reach and self._reach > 0:
            stride = 2 * self._reach / len(self.counts)
            more = int(_ratio(largest - self._reach, stride) + 1)
            if not self._reserve(2 * more, -largest, largest):
                largest = more * stride + self._reach
                self.counts = np.pad(self.counts, more)
        self._reach = max(largest, self._reach)
        counts, self.edges = self._counted(values, len(self.counts), -self._reach, self._reach)
        self.counts = counts + self.counts

    @property
    def _width(self) -> np.float32:
        return np.float32(self.edges[1] - self.edges[0])

    def _reserve(self, more: int, low: np.float32, high: np.float32) -> bool:
        """Whether ``more`` bins are too many; the counts then lie in as many as at first, from ``low`` to ``high``."""
        if len(self.counts) + more <= self._most:
            return False
        centres = (self.edges[:-1] + self.edges[1:]) / 2
        edges = np.linspace(low, high, self._bins + 1, dtype=np.float32)
        place = np.clip(np.searchsorted(edges, centres, side="right") - 1, 0, self._bins - 1)
        self.counts = np.bincount(place, weights=self.counts, minlength=self._bins).astype(np.int64)
        self.edges = edges
        return True


def _ratio(reach: np.float32, width: np.float32) -> np.float32:
    """How many bins of ``width`` fit into ``reach``; more than there may be where float32 cannot say."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        ratio = reach // width
    return np.float32(ratio) if np.isfinite(ratio) else np.float32(MOST_BINS)


def _counted(values: Values, bins: int, low: np.float32, high: np.float32) -> tuple[Counts, Values]:
    """Counts and edges, which numpy rounds as float32 where it gets the ends as such."""
    counts, edges = np.histogram(values, bins, range=(low, high))  # type: ignore[arg-type]
    return counts, edges.astype(np.float32)


def _counted_quickly(values: Values, bins: int, low: np.float32, high: np.float32) -> tuple[Counts, Values]:
    """``_counted`` at a fifth of the time."""
    width = (float(high) - float(low)) / bins
    if width < NOTHING:
        return _counted(values, bins, low, high)
    place = (values * (1 / width) - float(low) / width).astype(np.int32)
    counts = np.bincount(np.clip(place, 0, bins - 1, out=place), minlength=bins)
    return counts, np.linspace(float(low), float(high), bins + 1).astype(np.float32)
