"""How the range of an activation follows from its values: min-max, percentile, entropy.

A range method is a class of observers, one for each tensor. It sees the values batch by batch, keeps what it needs of
them in bounded memory, and gives the range at the end. Percentile and entropy keep histograms that grow with what they
see, as ONNX Runtime's calibrators do, so that the same inputs give the same ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["METHODS", "Entropy", "Histogram", "MinMax", "Observer", "Percentile", "RangeMethod"]

PERCENT = 99.99
"""Of the values that ``percentile`` keeps."""
PERCENTILE_BINS, ENTROPY_BINS = 2048, 128
"""To begin with: a histogram grows by bins of the width that it began with, so that what it says depends on which
inputs come first; entropy clips nothing before it has grown."""
MOST_BINS, MOST_ENTROPY_BINS = 1 << 16, 1 << 12
"""Where a histogram stops growing: 512 KiB a tensor, or 2,000 ranges to compare. Only a first batch of nearly nothing
leads there."""
NOTHING = 1e-35
LEVELS = 128
"""Of the distribution that entropy compares with; an int8 has as many magnitudes."""
SMOOTHING = 1e-4
"""What an empty bin counts, in place of nothing, of which the logarithm cannot be taken."""

Values = NDArray[np.float32]
Counts = NDArray[np.int64]


class Observer(Protocol):
    """Sees all values of one tensor, batch by batch."""

    def update(self, values: Values, low: np.float32, high: np.float32) -> None:
        """``values``: float32[n], n at least 1, all finite, from ``low`` to ``high``."""
        ...

    def bounds(self) -> tuple[float, float]:
        """(lowest, highest): what the quantized type is to hold, 0 to 0 if there was no value; the rest is clipped."""
        ...


class RangeMethod(Protocol):
    """Makes the observer of a tensor."""

    def __call__(self, *, symmetric: bool) -> Observer:
        """``symmetric``: the zero point will be 0, so that the larger magnitude decides."""
        ...


class MinMax:
    """The range that occurs."""

    def __init__(self, *, symmetric: bool) -> None:
        self.low, self.high = np.float32(np.inf), np.float32(-np.inf)

    def update(self, values: Values, low: np.float32, high: np.float32) -> None:
        """See ``Observer``."""
        self.low, self.high = min(self.low, low), max(self.high, high)

    def bounds(self) -> tuple[float, float]:
        """See ``Observer``."""
        return (float(self.low), float(self.high)) if self.low <= self.high else (0.0, 0.0)


class _Binned:
    """What has been seen of a tensor, as its ends and as a histogram."""

    def __init__(self, histogram: Histogram) -> None:
        self._seen = MinMax(symmetric=False)
        self._histogram = histogram

    def update(self, values: Values, low: np.float32, high: np.float32) -> None:
        """See ``Observer``."""
        self._seen.update(values, low, high)
        self._histogram.update(values, low, high)

    def cut(self, kept: Callable[[Counts, Values], tuple[np.float32, np.float32]]) -> tuple[float, float]:
        """The range that ``kept`` chooses of the histogram's counts and edges, as far as values were seen in it."""
        counts, edges = self._histogram.counts, self._histogram.edges
        if not len(counts):
            return 0.0, 0.0
        low, high = kept(counts, edges)
        return float(max(low, self._seen.low)), float(min(high, self._seen.high))


class Percentile(_Binned):
    """The range that holds 99.99 % of the values: half of the rest is cut at either end, or all at the magnitude's."""

    def __init__(self, *, symmetric: bool) -> None:
        super().__init__(Histogram(PERCENTILE_BINS, magnitudes=symmetric))
        self._symmetric = symmetric

    def bounds(self) -> tuple[float, float]:
        """See ``Observer``."""
        return self.cut(self._kept)

    def _kept(self, counts: Counts, edges: Values) -> tuple[np.float32, np.float32]:
        below = np.cumsum(counts / counts.sum())
        cut = (100.0 - PERCENT) / (100.0 if self._symmetric else 200.0)
        right = edges[np.searchsorted(below, PERCENT / 100.0 if self._symmetric else 1.0 - cut)]
        return -right if self._symmetric else edges[np.searchsorted(below, cut)], right


class Entropy(_Binned):
    """The range whose quantized values tell most of the values: the least Kullback-Leibler divergence of the two.

    Migacz, "8-bit Inference with TensorRT", GTC 2017.
    """

    def __init__(self, *, symmetric: bool) -> None:
        super().__init__(Histogram(ENTROPY_BINS, magnitudes=False, most=MOST_ENTROPY_BINS))

    def bounds(self) -> tuple[float, float]:
        """See ``Observer``."""
        return self.cut(_least_divergent)


class Histogram:
    """Counts of values over equal bins, which grow in number as larger values come.

    ``edges`` are symmetric about 0, or from the smallest magnitude of the first batch on with ``magnitudes``.
    """

    def __init__(self, bins: int, magnitudes: bool, most: int = MOST_BINS) -> None:
        self._bins, self._magnitudes, self._most = bins, magnitudes, most
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
            self.counts, self.edges = _counted(values, self._bins, -largest, largest)
            self._reach = largest
            return
        if largest > self._reach and self._reach > 0:
            stride = 2 * self._reach / len(self.counts)
            more = int(_ratio(largest - self._reach, stride) + 1)
            if not self._reserve(2 * more, -largest, largest):
                largest = more * stride + self._reach
                self.counts = np.pad(self.counts, more)
        self._reach = max(largest, self._reach)
        counts, self.edges = _counted(values, len(self.counts), -self._reach, self._reach)
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


def _least_divergent(counts: Counts, edges: Values) -> tuple[np.float32, np.float32]:
    """The ends of the middle bins whose quantized values tell most of all."""
    middle = len(counts) // 2
    reaches = range(LEVELS // 2, middle + 1)
    spans = [(middle - reach, min(middle + reach + 1, len(counts))) for reach in reaches]
    start, end = spans[int(np.argmin([_divergence(counts, *span) for span in spans]))]
    return edges[start], edges[end]


def _divergence(counts: Counts, start: int, end: int) -> np.float32:
    """How much of ``counts`` is lost where only bins ``start`` to ``end`` are kept, as ``LEVELS`` different values."""
    kept = counts[start:end]
    reference = kept.copy()
    reference[0] += counts[:start].sum()
    reference[-1] += counts[end:].sum()
    width = len(kept) // LEVELS
    inside = LEVELS * width
    levels = kept[:inside].reshape(LEVELS, width).sum(axis=1)
    levels[-1] += kept[inside:].sum()
    filled = (reference[:inside] != 0).reshape(LEVELS, width).sum(axis=1)
    spread = np.zeros(len(kept), np.int64)
    # Whole counts, as in ONNX Runtime: a level of 10 over 3 bins is 3 in each. What lies behind the last level is 0.
    spread[:inside] = np.repeat(np.where(filled > 0, levels / np.maximum(filled, 1), 0).astype(np.int64), width)
    p, q = _smoothed(reference), _smoothed(spread)
    if p is None or q is None:
        return np.float32(np.inf)
    p, q = p / p.sum(), q / q.sum()
    return np.float32((p * np.log(p / q)).sum())


def _smoothed(counts: Counts) -> Values | None:
    """Counts in which no bin is empty, with the same sum; ``None`` where all are."""
    empty = (counts == 0).astype(np.float32)
    filled = counts.size - float(empty.sum())
    if not filled:
        return None
    taken = SMOOTHING * float(empty.sum()) / filled
    return np.asarray(counts.astype(np.float32) + (SMOOTHING * empty - taken * (1 - empty)), dtype=np.float32)


METHODS: Mapping[str, RangeMethod] = {"minmax": MinMax, "percentile": Percentile, "entropy": Entropy}
"""Name → the method, as ``quantize.calibration`` and a plan's ``source`` name it."""
