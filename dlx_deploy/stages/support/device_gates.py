"""The budgets of a package that stands: its size, and what only the machine that runs it can say, which is pending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dlx_deploy.pipeline.gate import GateResult, Verdict
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.runtime.device_budgets import DeviceBudgets

__all__ = ["judge_package"]

MIB = 2**20
PENDING = (
    ("throughput", "min_throughput", "throughput"),
    ("memory", "max_memory_mib", "peak_memory_mib"),
    ("energy", "max_energy_mj", "energy_mj"),
    ("cold_start", "max_cold_start_ms", "cold_start_ms"),
)
"""Gate, budget, and what a device calls what it measures of it (``runtime/commands/resources``)."""


def judge_package(
    budgets: DeviceBudgets, title: str, outputs: Mapping[str, Path], metrics: Metrics
) -> list[GateResult]:
    """The gates of ``package.dlx`` for the target called ``title``."""
    return [*_size(budgets, outputs["package.dlx"].stat().st_size), *_pending(budgets, title)]


def _size(budgets: DeviceBudgets, size_bytes: int) -> Sequence[GateResult]:
    limit, mib = budgets.max_size_mib, size_bytes / MIB
    if not limit:
        return []
    met = mib <= limit
    text = f"the package has {mib:.4g} MiB; budget {limit:g} MiB: {'met' if met else 'missed'}"
    if not met:
        text += "; package.parity_samples, package.golden_images and package.deflate change it, and a smaller network"
    verdict: Verdict = "pass" if met else "fail"
    return [_result("size", "package_mib", limit, mib, verdict, text)]


def _pending(budgets: DeviceBudgets, title: str) -> Sequence[GateResult]:
    run = f"only {title} can; run on it: python PACKAGE bench"
    given = [(gate, getattr(budgets, name), metric) for gate, name, metric in PENDING]
    return [
        _result(gate, metric, limit, None, "pending", f"{metric} is not measured: {run}; budget {limit:g}")
        for gate, limit, metric in given
        if limit
    ]


def _result(gate: str, metric: str, limit: float, value: float | None, verdict: Verdict, text: str) -> GateResult:
    return GateResult(gate=gate, metric=metric, value=value, bound=value, limit=limit, verdict=verdict, text=text)
