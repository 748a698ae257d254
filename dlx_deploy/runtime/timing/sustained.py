"""What a machine does without a pause: samples a second, the energy of each, and the memory of the process."""

from __future__ import annotations

import time
from statistics import median
from typing import Callable, List, Optional

from ..power.meter import Meter
from ..records import record
from ..statistics.drops import percentile_lower_bound, percentile_upper_bound
from ..telling import Tell, silent
from .latency import CONFIDENCE

__all__ = ["Sustained", "peak_memory_mib", "sustain", "throughput_of"]

WINDOW_S = 3.0  # what comes and goes within it is met
LEAST_CALLS = 20
BLOCKS = 20
STATUS = "/proc/self/status"


@record
class Sustained:
    """Samples a second, given ``batch`` at a time without a pause: of the median of ``blocks`` of consecutive calls.

    ``lower`` and ``upper`` bound that median by order statistics, each at 95 % confidence; ``None``: too few blocks.
    """

    batch: int
    per_second: float
    lower: Optional[float]
    upper: Optional[float]
    blocks: int
    calls: int
    seconds: float


def sustain(
    call: Callable[[], object], batch: int, meter: Meter, max_s: float = 60.0, tell: Tell = silent
) -> Sustained:
    """Run ``call``, which takes ``batch`` samples, again and again, while ``meter`` counts what it costs."""
    call()
    meter.rest()
    ends: List[int] = []
    clock = time.perf_counter_ns
    with meter.running():
        began = clock()
        while True:
            call()
            meter.count(batch)
            ends.append(clock())
            passed = (ends[-1] - began) / 1e9
            tell(passed, WINDOW_S, "without a pause")
            if (passed >= WINDOW_S and len(ends) >= LEAST_CALLS) or passed >= max_s:
                break
    return throughput_of([began, *ends], batch)


def throughput_of(times_ns: List[int], batch: int) -> Sustained:
    """What the times say at which calls ended; the first is when they began."""
    calls = len(times_ns) - 1
    blocks = min(BLOCKS, calls)
    cuts = [times_ns[calls * i // blocks] for i in range(blocks + 1)]
    counts = [calls * (i + 1) // blocks - calls * i // blocks for i in range(blocks)]
    spans = zip(counts, cuts, cuts[1:])
    rates = sorted(batch * n * 1e9 / max(late - early, 1) for n, early, late in spans)
    return Sustained(
        batch=batch,
        per_second=median(rates),
        lower=percentile_lower_bound(rates, 50, CONFIDENCE),
        upper=percentile_upper_bound(rates, 50, CONFIDENCE),
        blocks=blocks,
        calls=calls,
        seconds=(times_ns[-1] - times_ns[0]) / 1e9,
    )


def peak_memory_mib(status: str = STATUS) -> Optional[float]:
    """The most that this process had resident since it began, in MiB; ``None`` where Linux does not say it."""
    try:
        with open(status, encoding="ascii", errors="replace") as f:
            return next((int(line.split()[1]) / 1024 for line in f if line.startswith("VmHWM:")), None)
    except OSError:
        return None
