"""The budgets of a package that stands: its size, and what only the machine that runs it can say.

Where that is the one that builds, ``measure`` has it say so; elsewhere they are pending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from dlx_deploy.pipeline.gate import GateResult, Verdict
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.runtime.device_budgets import DeviceBudgets
from dlx_deploy.runtime.statistics.drops import Decision

__all__ = ["Measured", "is_measured", "judge_measured", "judge_package"]

MIB = 2**20
AGAIN = ", with another verify.rounds: what was measured is kept"
BY_DEVICE = (
    ("throughput", "min_throughput", "throughput"),
    ("memory", "max_memory_mib", "peak_memory_mib"),
    ("energy", "max_energy_mj", "energy_mj"),
    ("cold_start", "max_cold_start_ms", "cold_start_ms"),
)
"""Gate, budget, and what a device calls what it measures of it (``runtime/commands/resources``)."""


class JudgedBudget(msgspec.Struct, frozen=True):
    """One budget, as ``bench`` judged it."""

    metric: str
    value: float | None
    bound: float | None
    limit: float
    verdict: Decision
    text: str


class Measured(msgspec.Struct, frozen=True):
    """Of what ``bench`` says the budgets. ``energy_unknown``: why the energy was not measured; empty where it was."""

    judged: tuple[JudgedBudget, ...]
    energy_unknown: str = ""


def is_measured(budgets: DeviceBudgets) -> bool:
    """Whether there is a budget that takes a device to judge it."""
    return any(getattr(budgets, name) for _, name, _ in BY_DEVICE)


def judge_package(
    budgets: DeviceBudgets, title: str, here: bool, outputs: Mapping[str, Path], metrics: Metrics
) -> list[GateResult]:
    """The gates of ``package.dlx`` for the target called ``title``; what is judged ``here`` next is not pending."""
    size = _size(budgets, outputs["package.dlx"].stat().st_size)
    return [*size, *([] if here else _pending(budgets, title))]


def judge_measured(budgets: DeviceBudgets, outputs: Mapping[str, Path], metrics: Metrics) -> list[GateResult]:
    """The gates of what ``resources.json`` says of the package.

    Raises:
        ValueError: it says nothing of one of the ``budgets``.
    """
    seen = msgspec.json.decode(outputs["resources.json"].read_bytes(), type=Measured)
    found = {one.metric: one for one in seen.judged}
    results = []
    for gate, name, metric in BY_DEVICE:
        limit = getattr(budgets, name)
        if not limit:
            continue
        if metric not in found or found[metric].limit != limit:
            raise ValueError(f"the package's bench has not judged {metric} by {limit:g}")
        results.append(_of_bench(gate, found[metric], seen.energy_unknown))
    return results


def _of_bench(gate: str, one: JudgedBudget, energy_unknown: str) -> GateResult:
    verdict: Verdict = one.verdict
    text = one.text
    if gate == "energy" and energy_unknown:
        text = f"energy of an inference is not measured here: {energy_unknown}; budget {one.limit:g}"
        return _result(gate, one.metric, one.limit, None, "pending", text)
    if verdict == "undecided":
        text += AGAIN
    return msgspec.structs.replace(_result(gate, one.metric, one.limit, one.value, verdict, text), bound=one.bound)


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
    here = "dlx-deploy verify X.dlx --data DIR --on ssh://user@board"
    run = f"only {title} can; run on it: python PACKAGE bench, or from here: {here}"
    given = [(gate, getattr(budgets, name), metric) for gate, name, metric in BY_DEVICE]
    return [
        _result(gate, metric, limit, None, "pending", f"{metric} is not measured: {run}; budget {limit:g}")
        for gate, limit, metric in given
        if limit
    ]


def _result(gate: str, metric: str, limit: float, value: float | None, verdict: Verdict, text: str) -> GateResult:
    return GateResult(gate=gate, metric=metric, value=value, bound=value, limit=limit, verdict=verdict, text=text)
