"""How the range of an activation follows from its values: min-max, percentile, entropy, least squared error.

A range method is a class of observers, one for each tensor. It sees the values batch by batch, keeps what it needs of
them in bounded memory, and gives the range at the end. Percentile and entropy keep histograms that grow with what they
see, as ONNX Runtime's calibrators do, so that the same inputs give the same ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.graph.quantization.histogram import Counts, Histogram, Values

__all__ = ["METHODS", "Entropy", "MinMax", "Mse", "Observer", "Percentile", "RangeMethod"]

PERCENT = 99.99
"""Of the values that ``percentile`` keeps."""
PERCENTILE_BINS, ENTROPY_BINS, MSE_BINS = 2048, 128, 4096
"""To begin with: a histogram grows by bins of the width that it began with, so that what it says depends on which
inputs come first; entropy clips nothing before it has grown."""
MOST_ENTROPY_BINS = 1 << 12
"""2,000 ranges to compare."""
LEVELS = 128
"""Of the distribution that entropy compares with; an int8 has as many magnitudes."""
SMOOTHING = 1e-4
"""What an empty bin counts, in place of nothing, of which the logarithm cannot be taken."""
MOST_VALUES = 1 << 17
"""About as many of a batch's values are counted for the squared error."""
SHARES = tuple(float(share) for share in np.geomspace(1, 1 / 32, 76))
"""Of what occurs: ends of ranges to compare, finest near the whole."""

Floats = NDArray[np.float64]


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


class Mse(_Binned):
    """The range whose integers are nearest to the values: the least squared error of rounding and clipping together.

    Sung, Shin and Hwang, "Resiliency of Deep Neural Networks under Quantization", 2015 (arXiv 1511.06488); here each
    end is searched over shares of what occurs, one after the other.
    """

    def __init__(self, *, symmetric: bool) -> None:
        super().__init__(Histogram(MSE_BINS, magnitudes=False, quick=True))
        self._symmetric = symmetric

    def update(self, values: Values, low: np.float32, high: np.float32) -> None:
        """See ``Observer``; of many values some will do, as the ends are known."""
        super().update(values[:: values.size // MOST_VALUES | 1], low, high)

    def bounds(self) -> tuple[float, float]:
        """See ``Observer``."""
        return self.cut(self._nearest)

    def _nearest(self, counts: Counts, edges: Values) -> tuple[np.float32, np.float32]:
        filled = counts > 0
        exact = edges.astype(np.float64)
        centres = ((exact[:-1] + exact[1:]) / 2)[filled]
        weights = counts[filled].astype(np.float64)
        low, high = min(float(self._seen.low), 0.0), max(float(self._seen.high), 0.0)
        if self._symmetric:
            reach = max(-low, high)
            ends = [(-share * reach, share * reach) for share in SHARES]
            low, high = min(ends, key=lambda ends: _squared_error(centres, weights, *ends, symmetric=True))
            return np.float32(low), np.float32(high)
        for lows, highs in (((1.0,), SHARES), (SHARES, (1.0,)), ((1.0,), SHARES)):
            ends = [(share * low, other * high) for share in lows for other in highs]
            low, high = min(ends, key=lambda ends: _squared_error(centres, weights, *ends, symmetric=False))
        return np.float32(low), np.float32(high)


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


def _squared_error(centres: Floats, weights: Floats, low: float, high: float, *, symmetric: bool) -> float:
    """The sum over values of the square of what 8 bits from ``low`` to ``high`` make of them."""
    steps = np.float64((high - low) / (2 * (LEVELS - 1) + (0 if symmetric else 1)))
    if steps <= 0:
        return np.inf
    zero = np.rint(-low / steps)
    top = np.rint((high - low) / steps)
    nearest = (np.clip(np.rint(centres / steps) + zero, 0, top) - zero) * steps
    return float((weights * np.square(centres - nearest)).sum())


METHODS: Mapping[str, RangeMethod] = {"minmax": MinMax, "percentile": Percentile, "entropy": Entropy, "mse": Mse}
"""Name → the method, as ``quantize.calibration`` and a plan's ``source`` name it."""
