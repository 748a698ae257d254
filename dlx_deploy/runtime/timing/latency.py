"""Latencies as values: percentiles with bounds that hold where timings come in bursts. Standard library only."""

from __future__ import annotations

import math
from typing import Optional, Sequence, Tuple

from ..device_budgets import PERCENTILES
from ..records import record, replace
from ..statistics.drops import Decision
from ..statistics.timings import UNSEEN, block_medians, percentile_bounds, timings_needed
from .histogram import Histogram, histogram_of

__all__ = [
    "CONFIDENCE",
    "PERCENTILES",
    "Latency",
    "Percentile",
    "decide",
    "noisy_bounds",
    "rounds_for",
    "summarise",
    "widened",
]

CONFIDENCE = 0.95
"""Of each bound, one-sided."""
USUAL = 90
"""The percentile that decides how many rounds there are where no budget does."""


@record
class Percentile:
    """A percentile (nearest rank) in milliseconds, and its bounds at 95 % confidence each; ``None``: too few timings.

    The bounds are order statistics over ``blocks`` of consecutive timings. ``by_slowest``: bursts leave too few blocks
    for the upper one, or even long ones follow each other (``bursts``), and it is three times the slowest timing.
    """

    percentile: int
    ms: float
    lower_ms: Optional[float]
    upper_ms: Optional[float]
    blocks: int = 0
    bursts: bool = False
    by_slowest: bool = False


@record
class Latency:
    """What ``n`` timings in milliseconds come to. ``percentiles``: those of ``PERCENTILES``, each with its bounds.

    What begins with ``p90`` and what follows it up to ``by_slowest`` are the 90th one's.
    ``block_p50_ms``: the medians of up to 20 blocks, in the order measured. ``histogram``: how all are spread.
    """

    n: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p90_upper_ms: Optional[float]
    p90_lower_ms: Optional[float]
    blocks: int = 0
    bursts: bool = False
    by_slowest: bool = False
    block_p50_ms: Tuple[float, ...] = ()
    percentiles: Tuple[Percentile, ...] = ()
    histogram: Optional[Histogram] = None

    def at(self, percentile: int) -> Percentile:
        """One of ``PERCENTILES``."""
        return next(one for one in self.percentiles if one.percentile == percentile)


def rounds_for(percentiles: Sequence[int]) -> int:
    """How many timings bound the highest of ``percentiles``, or else the usual one: 300 for p90, 3,070 for p99."""
    return timings_needed(max(percentiles, default=USUAL), CONFIDENCE)


def summarise(nanoseconds: Sequence[int]) -> Latency:
    """The percentiles of timings in nanoseconds, which are in the order measured."""
    timings = [x / 1e6 for x in nanoseconds]
    ranked, n = sorted(timings), len(timings)
    p50, p90, p99 = every = tuple(_percentile(p, timings, ranked) for p in PERCENTILES)
    return Latency(
        n=n,
        mean_ms=sum(ranked) / n,
        p50_ms=p50.ms,
        p90_ms=p90.ms,
        p99_ms=p99.ms,
        p90_upper_ms=p90.upper_ms,
        p90_lower_ms=p90.lower_ms,
        blocks=p90.blocks,
        bursts=p90.bursts,
        by_slowest=p90.by_slowest,
        block_p50_ms=tuple(block_medians(timings)),
        percentiles=every,
        histogram=histogram_of(ranked),
    )


def decide(seen: Percentile, limit_ms: float, noisy: bool = False) -> Decision:
    """Whether a percentile is within its budget: by its upper bound it is, by its lower one it is not.

    Where the machine was ``noisy`` the bounds are ``UNSEEN`` times as far away: its own latency is taken to be no
    further from what was seen, and a budget in between is undecided.
    """
    if noisy:
        seen = widened(seen)
    if seen.upper_ms is not None and seen.upper_ms <= limit_ms:
        return "pass"
    return "fail" if seen.lower_ms is not None and seen.lower_ms > limit_ms else "undecided"


def widened(seen: Percentile) -> Percentile:
    """The bounds that count where a machine was noisy; one by the slowest timing is that wide already."""
    upper, lower = seen.upper_ms, seen.lower_ms
    return replace(
        seen,
        upper_ms=upper if upper is None or seen.by_slowest else UNSEEN * upper,
        lower_ms=None if lower is None else lower / UNSEEN,
    )


def noisy_bounds(noise: Sequence[str]) -> str:
    """How bounds were had that count for a noisy machine, and why it was."""
    return (
        f"{UNSEEN:g} times as far as at {100 * CONFIDENCE:g} % confidence, as the machine was noisy: {'; '.join(noise)}"
    )


def _percentile(percentile: int, timings: Sequence[float], ranked: Sequence[float]) -> Percentile:
    bounds = percentile_bounds(timings, percentile, CONFIDENCE)
    return Percentile(
        percentile=percentile,
        ms=ranked[math.ceil(len(ranked) * percentile / 100) - 1],
        lower_ms=bounds.lower,
        upper_ms=bounds.upper,
        blocks=bounds.blocks,
        bursts=bounds.bursts,
        by_slowest=bounds.by_slowest,
    )
