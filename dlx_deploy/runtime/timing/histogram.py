"""How timings are spread, in little: counts that are kept where the timings themselves are not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence, Tuple

__all__ = ["BINS", "Histogram", "histogram_of"]

BINS = 64  # at most
PAST_P99 = 1.25  # the equal bins end so many times as far from the fastest as p99: what is slower is counted as one

LONGEST_MS = 1e9  # eleven days: no timing of one inference
ROUNDED = 1.001  # the last bin may end so many times as far as the slowest: each is written with six digits


@dataclass(frozen=True)
class Histogram:
    """``counts`` of timings in bins of ``width_ms`` from ``fastest_ms`` on, which is among the first.

    ``slower``: how many lie beyond the last bin, up to ``slowest_ms``; empty bins at the end are left out.
    """

    fastest_ms: float
    width_ms: float
    counts: Tuple[int, ...]
    slower: int
    slowest_ms: float

    def is_of(self, n: int) -> bool:
        """Whether it can be the histogram of ``n`` timings: what came over a connection may be anything."""
        times = (self.fastest_ms, self.width_ms, self.slowest_ms)
        counts = (*self.counts, self.slower)
        return (
            all(0 <= ms <= LONGEST_MS for ms in times)
            and self.fastest_ms <= self.slowest_ms
            and 1 <= len(self.counts) <= BINS
            and self.fastest_ms + len(self.counts) * self.width_ms <= self.slowest_ms * ROUNDED
            and min(counts) >= 0
            and sum(counts) == n
        )


def histogram_of(ranked: Sequence[float]) -> Histogram:
    """That of timings in milliseconds, at least one, the fastest first.

    As many bins as the square root of the timings are enough; more would show their chance.
    """
    n, fastest, slowest = len(ranked), ranked[0], ranked[-1]
    p99 = ranked[math.ceil(n * 0.99) - 1]
    end = min(slowest, fastest + PAST_P99 * (p99 - fastest))
    bins = min(BINS, max(1, math.ceil(math.sqrt(n)))) if end > fastest else 1
    width = (end - fastest) / bins
    counts, slower = [0] * bins, 0
    for ms in ranked:
        if ms > end:
            slower += 1
        else:
            counts[min(bins - 1, int((ms - fastest) / width)) if width else 0] += 1
    while len(counts) > 1 and not counts[-1]:
        del counts[-1]
    return Histogram(_short(fastest), _short(width), tuple(counts), slower, _short(slowest))


def _short(ms: float) -> float:
    """Six digits are more than a clock has."""
    return float(f"{ms:.6g}")
