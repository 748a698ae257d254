"""Bounds for timings that come in bursts: a percentile, and how much faster one of two is. Standard library only.

A busy neighbour or a throttled clock slows many runs in a row, so timings are no independent samples, and a bound that
takes them for such is too narrow. Here they are cut into blocks of consecutive ones, in the order measured. Blocks grow
until neighbours are no longer alike, and what counts is how many blocks there are.
"""

from __future__ import annotations

import math
from statistics import median
from typing import Callable, List, Optional, Sequence

from ..records import record
from .drops import percentile_lower_bound, percentile_upper_bound

__all__ = [
    "UNSEEN",
    "PercentileBounds",
    "Speedup",
    "block_medians",
    "paired_speedup",
    "percentile_bounds",
    "timings_needed",
]

LEAST_BLOCKS = 8  # with fewer, likeness of neighbours cannot be seen
FIRST_BLOCK = 5  # runs in the smallest block, where there are enough of them
MANY_BLOCKS = 60  # at least; p90 has as many
SPARE = 5 / 3  # blocks for each that a bound at half the error needs: p90 at 0.95 needs 36, p99 368
PAIRED_BLOCKS = 20
UNSEEN = 3.0  # where bursts leave too few blocks: what was never met is taken to be up to so many times the slowest
ALIKE = 2.33  # standard errors of the neighbours' correlation: by chance one measurement in a hundred is above


@record
class PercentileBounds:
    """One-sided bounds of a percentile, each at the confidence asked for, ``None`` where there are too few blocks.

    ``block``: timings in a block; ``blocks``: how many; ``bursts``: whether the blocks still follow each other.
    ``by_slowest``: ``upper`` is ``UNSEEN`` times the slowest timing and no order statistic.
    """

    lower: Optional[float]
    upper: Optional[float]
    block: int
    blocks: int
    bursts: bool
    by_slowest: bool = False


@record
class Speedup:
    """How many times as fast one of two is: a median of ratios, its one-sided bounds (``None``: too few blocks)."""

    ratio: float
    lower: Optional[float]
    upper: Optional[float]
    blocks: int


def percentile_bounds(timings: Sequence[float], percentile: float, confidence: float) -> PercentileBounds:
    """The bounds of a percentile of ``timings``, which are in the order measured.

    The first timings of all blocks are as good as independent, and so are the second ones, and so on. Each of these
    rows gives a bound by order statistics at half the error; their median errs at most twice as often as one of them,
    however alike the timings within a block are.

    Bursts may leave too few blocks for that bound where there are timings enough for it. A budget far above everything
    that was seen is met all the same: the upper bound then is ``UNSEEN`` times the slowest timing. It assumes that what
    was not met is no slower than that, and claims nothing else.

    Raises:
        InputError: a percentile outside 0..100 or a confidence outside 0.5..1.
    """
    n = len(timings)
    cut = sorted(timings)[max(math.ceil(n * percentile / 100) - 1, 0)] if n else 0.0
    above = [float(x > cut) for x in timings]
    size = max(1, min(FIRST_BLOCK, n // _many_blocks(percentile, confidence)))
    enough = _upper(timings, size, percentile, confidence) is not None
    bursts = _alike(_sums(above, size))
    while bursts and n // (2 * size) >= LEAST_BLOCKS:
        size *= 2
        bursts = _alike(_sums(above, size))
    upper = None if bursts else _upper(timings, size, percentile, confidence)
    by_slowest = enough and upper is None
    return PercentileBounds(
        lower=_across(_rows(timings, size), percentile_lower_bound, percentile, confidence, min),
        upper=UNSEEN * max(timings) if by_slowest else upper,
        block=size,
        blocks=n // size,
        bursts=bursts,
        by_slowest=by_slowest,
    )


def timings_needed(percentile: float, confidence: float) -> int:
    """How many timings bound a percentile on a machine that is calm: 300 for p90 at 0.95, 3,070 for p99.

    Raises:
        InputError: as ``percentile_bounds``.
    """
    return FIRST_BLOCK * _many_blocks(percentile, confidence)


def block_medians(timings: Sequence[float]) -> List[float]:
    """The medians of ``PAIRED_BLOCKS`` equal blocks of consecutive timings, or of as many as there are timings."""
    blocks = max(min(PAIRED_BLOCKS, len(timings)), 1)
    size = len(timings) // blocks
    return [median(timings[i * size : (i + 1) * size]) for i in range(blocks)] if size else []


def paired_speedup(slow: Sequence[float], fast: Sequence[float], confidence: float) -> Speedup:
    """How many times as fast ``fast`` is: block medians of two that were timed in turn, block by block.

    What slows a block slows both, so their ratio is what is judged, by order statistics of its median. Neighbouring
    blocks whose ratios are alike are joined.

    Raises:
        InputError: a confidence outside 0.5..1.
    """
    logs = [math.log(a / b) for a, b in zip(slow, fast)]
    middle = median(logs)
    while len(logs) >= LEAST_BLOCKS and _alike([float(x > middle) for x in logs]):
        logs = [sum(pair) / 2 for pair in zip(logs[::2], logs[1::2])]
    ranked = sorted(logs)
    lower = percentile_lower_bound(ranked, 50, confidence)
    upper = percentile_upper_bound(ranked, 50, confidence)
    return Speedup(
        ratio=math.exp(median(ranked)),
        lower=None if lower is None else math.exp(lower),
        upper=None if upper is None else math.exp(upper),
        blocks=len(logs),
    )


def _many_blocks(percentile: float, confidence: float) -> int:
    """Blocks with which both bounds are well inside of the timings."""
    percentile_upper_bound([], percentile, confidence)  # refuses what is out of range
    rare = max(percentile, 100 - percentile) / 100
    needed = math.ceil(math.log((1 - confidence) / 2) / math.log(rare))
    return max(MANY_BLOCKS, math.ceil(SPARE * needed))


def _upper(timings: Sequence[float], size: int, percentile: float, confidence: float) -> Optional[float]:
    return _across(_rows(timings, size), percentile_upper_bound, percentile, confidence, max)


def _rows(timings: Sequence[float], size: int) -> List[List[float]]:
    """Row i: the i-th timing of every block, sorted."""
    whole = len(timings) // size * size
    return [sorted(timings[i:whole:size]) for i in range(size)]


def _across(
    rows: Sequence[Sequence[float]],
    bound: Callable[[Sequence[float], float, float], Optional[float]],
    percentile: float,
    confidence: float,
    outermost: Callable[[Sequence[float]], float],
) -> Optional[float]:
    """The median of the rows' bounds at half the error; with too few blocks for it the outermost at the whole error."""
    narrow = [bound(row, percentile, (1 + confidence) / 2) for row in rows]
    bounds = [x for x in narrow if x is not None]
    if bounds and len(bounds) == len(rows):
        ranked = sorted(bounds, reverse=outermost is min)
        return ranked[len(ranked) // 2]
    bounds = [x for x in (bound(row, percentile, confidence) for row in rows) if x is not None]
    return outermost(bounds) if bounds and len(bounds) == len(rows) else None


def _sums(values: Sequence[float], size: int) -> List[float]:
    return [sum(values[i : i + size]) for i in range(0, len(values) - size + 1, size)]


def _alike(values: Sequence[float]) -> bool:
    """Whether neighbours resemble each other more than chance explains (correlation of each with the next)."""
    n = len(values)
    if n < LEAST_BLOCKS:
        return False
    mean = sum(values) / n
    centred = [x - mean for x in values]
    spread = sum(x * x for x in centred)
    following = sum(centred[i] * centred[i + 1] for i in range(n - 1))
    return spread > 0 and following / spread > ALIKE / math.sqrt(n)
