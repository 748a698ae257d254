"""The gates of a verification, pure functions of what it gave and of a budget; and what it takes to pass one."""

from __future__ import annotations

from typing import Any

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.stages.support.results import REFERENCE, Accuracy, Latencies

__all__ = ["fewest_samples_for", "judge_accuracy", "judge_chance", "judge_floor", "judge_latency"]

LEAST_DROP = 1e-9
"""Under this budget no test split is large enough: it is none."""


def judge_accuracy(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Non-inferiority of the shipped model to its teacher (Tango's score bound, see ``runtime.statistics.drops``)."""
    from dlx_deploy.runtime.statistics.drops import non_inferiority

    row = accuracy.row(accuracy.shipped)
    verdict = non_inferiority(row.b, row.c, accuracy.n, budgets.max_drop, budgets.confidence)
    text = verdict.explain()
    if verdict.verdict != "pass":
        text += "; to improve: train and distill longer, prune less, or raise gate.max_drop"
    return GateResult(
        gate="accuracy",
        metric="top1_drop",
        value=verdict.drop,
        bound=verdict.upper,
        limit=budgets.max_drop,
        verdict=verdict.verdict,
        text=text,
    )


def judge_floor(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Whether the shipped model is right often enough (Clopper and Pearson, see ``runtime.statistics.floors``)."""
    from dlx_deploy.runtime.statistics.floors import accuracy_floor

    floor = accuracy_floor(_right(accuracy, accuracy.shipped), accuracy.n, budgets.min_accuracy, budgets.confidence)
    text = f"{accuracy.shipped}: {floor.explain()}"
    if budgets.min_accuracy * accuracy.n <= accuracy.largest_class:
        share = accuracy.largest_class / accuracy.n
        text += (
            f"; always answering the largest class would be right on {100 * share:.2f} %, so this floor shows little"
        )
    if floor.verdict == "fail":
        text += "; train a better teacher, compress less, or lower gate.min_accuracy"
    return GateResult(
        gate="min_accuracy",
        metric="top1",
        value=floor.accuracy,
        bound=floor.upper if floor.verdict == "fail" else floor.lower,
        limit=budgets.min_accuracy,
        verdict=floor.verdict,
        text=text,
    )


def judge_chance(budgets: Gate, accuracy: Accuracy) -> GateResult:
    """Whether the teacher is clearly better than always answering the largest class: nothing in between is undecided.

    A drop against a teacher at chance level means nothing, so what cannot be told from chance is refused.
    """
    from dlx_deploy.runtime.statistics.floors import accuracy_floor

    n, largest = accuracy.n, accuracy.largest_class
    share = largest / n
    floor = accuracy_floor(_right(accuracy, REFERENCE), n, min(share, 1 - 0.5 / n), budgets.confidence)
    clearly = floor.lower > share
    word = "clearly" if clearly else "not clearly"
    text = (
        f"the teacher is right on {100 * floor.accuracy:.2f} % of {n} test samples, "
        f"at least {100 * floor.lower:.2f} % at {budgets.confidence:.4g} confidence; "
        f"{word} better than always answering the largest class, which is right on {100 * share:.2f} %"
    )
    if not clearly:
        if floor.samples_needed and share < 1:
            text += f" (about {floor.samples_needed} test samples could show it)"
        text += "; train the teacher until it is, or set gate.allow_chance = true to ship it all the same"
    return GateResult(
        gate="chance",
        metric="teacher_top1",
        value=floor.accuracy,
        bound=floor.lower,
        limit=share,
        verdict="pass" if clearly else "fail",
        text=text,
    )


def _right(accuracy: Accuracy, model: str) -> int:
    return round(accuracy.row(model).top1 * accuracy.n)


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


def _latency_result(limit: float, value: float | None, bound: float | None, verdict: Any, text: str) -> GateResult:
    return GateResult(
        gate="latency", metric="latency_p90_ms", value=value, bound=bound, limit=limit, verdict=verdict, text=text
    )


def fewest_samples_for(budgets: Gate, flips: float) -> int | None:
    """The samples that show no drop beyond the budget where there is none and this share of answers changes.

    ``None``: there is no such number.
    """
    from dlx_deploy.runtime.statistics.drops import drop_upper_bound

    if budgets.max_drop < LEAST_DROP:
        return None

    def enough(n: int) -> bool:
        return drop_upper_bound(n * flips / 2, n * flips / 2, n, budgets.confidence) <= budgets.max_drop

    high = 1
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
