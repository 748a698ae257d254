"""The gate that every task has, of latency: a pure function of what verification measured and of a budget."""

from __future__ import annotations

from dlx_deploy.pipeline.gate import GateResult, Verdict
from dlx_deploy.stages.support.results import Latencies

__all__ = ["judge_latency"]


def judge_latency(limit_ms: float, latencies: Latencies, shipped: str) -> GateResult:
    """Whether the shipped model is fast enough where it was measured; ``pending`` where it was estimated."""
    timing = next(t for t in latencies.rows if t.model == shipped)
    if latencies.kind != "measured":
        text = (
            f"not measured: only {latencies.where} can; run on it: dlx-deploy bench PACKAGE --max-p90-ms {limit_ms:g}"
        )
        return _latency_result(limit_ms, None, None, "pending", text)
    upper = timing.p90_upper_ms
    lower = timing.p90_ms if timing.p90_lower_ms is None else timing.p90_lower_ms
    most = "an unknown limit" if upper is None else f"{upper:.4g} ms"
    how = "by a multiple of the slowest, as the timings come in bursts" if timing.by_slowest else "at 95 % confidence"
    text = f"p90 is {timing.p90_ms:.4g} ms, at most {most} {how}; budget {limit_ms:g} ms"
    if upper is not None and upper <= limit_ms:
        return _latency_result(limit_ms, timing.p90_ms, upper, "pass", text)
    if lower is not None and lower > limit_ms:
        text = f"p90 is {timing.p90_ms:.4g} ms, at least {lower:.4g} ms at 95 % confidence; budget {limit_ms:g} ms"
        return _latency_result(limit_ms, timing.p90_ms, lower, "fail", text)
    text += "; to decide: raise verify.rounds"
    if timing.by_slowest:
        text += ", or build when the machine is quieter"
    return _latency_result(limit_ms, timing.p90_ms, upper, "undecided", text)


def _latency_result(limit: float, value: float | None, bound: float | None, verdict: Verdict, text: str) -> GateResult:
    return GateResult(
        gate="latency", metric="latency_p90_ms", value=value, bound=bound, limit=limit, verdict=verdict, text=text
    )
