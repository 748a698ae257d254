"""The gates that every task has, of latency: pure functions of what verification measured and of a budget."""

from __future__ import annotations

from dlx_deploy.pipeline.gate import GateResult, Verdict
from dlx_deploy.runtime.timing.latency import decide, noisy_bounds, widened
from dlx_deploy.stages.support.results import Latencies
from dlx_deploy.targets.roofline import ANCHOR_ERROR

__all__ = ["judge_latency"]


def judge_latency(percentile: int, limit_ms: float, latencies: Latencies, shipped: str) -> GateResult:
    """Whether the shipped model is fast enough where it was measured; ``pending`` where it was estimated."""
    p = f"p{percentile}"
    if latencies.kind != "measured":
        run = f"run on it: dlx-deploy bench PACKAGE --max-{p}-ms {limit_ms:g}"
        text = f"not measured: only {latencies.where} can; {run}{_estimate(latencies, shipped)}"
        return _result(percentile, limit_ms, None, None, "pending", text)
    noise = latencies.state.noise if latencies.state else ()
    seen = next(t for t in latencies.rows if t.model == shipped).at(percentile)
    verdict = decide(seen, limit_ms, bool(noise))
    level = noisy_bounds(noise) if noise else "at 95 % confidence"
    seen = widened(seen) if noise else seen
    if verdict == "fail":
        least = f"at least {seen.lower_ms:.4g} ms {level}"
        text = f"{p} is {seen.ms:.4g} ms, {least}; budget {limit_ms:g} ms"
        return _result(percentile, limit_ms, seen.ms, seen.lower_ms, verdict, text)
    most = "an unknown limit" if seen.upper_ms is None else f"{seen.upper_ms:.4g} ms"
    how = "by a multiple of the slowest, as the timings come in bursts" if seen.by_slowest else level
    text = f"{p} is {seen.ms:.4g} ms, at most {most} {how}; budget {limit_ms:g} ms"
    if verdict == "undecided":
        text += "; to decide: " + ("" if noise else "raise verify.rounds")
        if seen.by_slowest or noise:
            text += ("" if noise else ", or ") + "build when the machine is quieter"
    return _result(percentile, limit_ms, seen.ms, seen.upper_ms, verdict, text)


def _estimate(latencies: Latencies, shipped: str) -> str:
    """What the roofline says of the shipped model, and how far it was off elsewhere: no verdict rests on it."""
    timing = next((t for t in latencies.rows if t.model == shipped), None)
    if timing is None or timing.low_ms is None or timing.high_ms is None:
        return ""
    error = f"the profiles' mean error on published latencies is {100 * ANCHOR_ERROR:.0f} %"
    guess = f"{timing.p50_ms:.4g} ms, {timing.low_ms:.4g} to {timing.high_ms:.4g}"
    return f". By the roofline {guess} ({error}), which decides nothing"


def _result(
    percentile: int, limit: float, value: float | None, bound: float | None, verdict: Verdict, text: str
) -> GateResult:
    metric = f"latency_p{percentile}_ms"
    return GateResult(gate="latency", metric=metric, value=value, bound=bound, limit=limit, verdict=verdict, text=text)
