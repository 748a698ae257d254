"""Ranges that clip: where few values are far out, the others get finer steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dlx_deploy.graph.quantization.kit.state import Setting, State, Step
from dlx_deploy.graph.quantization.ranges import Range, Ranges
from dlx_deploy.progress import Progress

__all__ = ["by_method"]


def by_method(method: str) -> Step:
    """The step that finds the ranges of activations by ``method``, where the plan does not say them."""

    def propose(state: State, setting: Setting, progress: Progress) -> State | None:
        if state.method == method:
            return None
        ranges = (
            state.ranges if setting.has_measured(state, method) else setting.measured(state.model, method, progress)
        )
        if not ranges.rows:
            return None
        plan = setting.planned(state.model, ranges, method)
        if plan == state.plan:
            return None
        return replace(state, plan=plan, ranges=_joined(state.ranges, ranges, method), method=method)

    return Step(f"ranges by {method}", propose)


def _joined(known: Ranges, found: Ranges, method: str) -> Ranges:
    """``known`` with what ``method`` found."""
    tensors: dict[str, Mapping[str, Range]] = dict(known.tensors)
    for name, bounds in found.of(method).items():
        tensors[name] = {**known.tensors.get(name, {}), method: bounds}
    return Ranges(rows=known.rows, tensors=tensors)
