"""What a measurement says of its budgets, as sentences too."""

from __future__ import annotations

from typing import Optional

from ..records import record
from ..statistics.drops import Decision
from ..statistics.timings import UNSEEN
from .latency import CONFIDENCE, Latency, Percentile, decide, noisy_bounds, rounds_for, widened
from .sampling import Sampled

__all__ = ["Judged", "judge", "metric_of"]


@record
class Judged:
    """One budget, judged: ``bound`` is what was held against ``limit``."""

    metric: str
    value: Optional[float]
    bound: Optional[float]
    limit: float
    verdict: Decision
    text: str


def metric_of(percentile: int) -> str:
    """How a percentile's latency is called among metrics."""
    return f"latency_p{percentile}_ms"


def judge(latency: Latency, percentile: int, limit: float, sampled: Sampled) -> Judged:
    """What the bounds of a percentile say of its budget."""
    noise = sampled.noise
    verdict = decide(latency.at(percentile), limit, bool(noise))
    seen = widened(latency.at(percentile)) if noise else latency.at(percentile)
    text = _text(seen, limit, verdict, latency.n, sampled)
    bound = seen.lower_ms if verdict == "fail" else seen.upper_ms
    return Judged(metric_of(percentile), seen.ms, bound, limit, verdict, text)


def _text(seen: Percentile, limit: float, verdict: Decision, n: int, sampled: Sampled) -> str:
    """The verdict as a sentence."""
    low, high = _ms(seen.lower_ms), _ms(seen.upper_ms)
    ends = {"pass": "met", "fail": "missed", "undecided": f"undecided; {_what_would_decide(seen, n, sampled)}"}
    level, blocks = f"{CONFIDENCE} confidence", f"{n} rounds in {seen.blocks} blocks"
    if seen.by_slowest:
        slowest = f"{UNSEEN:g} times the slowest: they come in bursts"
        range_ = f"at least {low} ({level}, {blocks}), at most {high} ({slowest})"
        if sampled.noise:
            range_ += f", the machine was noisy: {'; '.join(sampled.noise)}"
    elif sampled.noise:
        range_ = f"between {low} and {high} ({noisy_bounds(sampled.noise)}; {blocks})"
    else:
        range_ = f"between {low} and {high} (each at {level}, {blocks})"
    return f"p{seen.percentile} {_ms(seen.ms)}, {range_}; budget {_ms(limit)}: {ends[verdict]}"


def _what_would_decide(seen: Percentile, n: int, sampled: Sampled) -> str:
    more = f"measure with more rounds, for instance {max(4 * n, rounds_for([seen.percentile]))}"
    if sampled.cut:
        more = f"{sampled.seconds:.0f} s were not enough: measure for longer, with --max-seconds"
    if sampled.noise:
        return "measure on a quieter machine"  # more of the same would not decide
    return f"{more}, or on a quieter machine" if seen.by_slowest else more


def _ms(value: Optional[float]) -> str:
    return "an unknown limit" if value is None else f"{value:.4g} ms"
