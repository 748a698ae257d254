"""Smaller steps for blocks of INT4 weights: the largest weight is clipped where all others gain more by it."""

from __future__ import annotations

from dataclasses import replace

from msgspec.structs import replace as changed

from dlx_deploy.graph.quantization.kit.state import Setting, State
from dlx_deploy.progress import Progress

__all__ = ["least_squares"]


def least_squares(state: State, setting: Setting, progress: Progress) -> State | None:
    """``state`` with block scales of the least squared error, but for those that the plan that was given names."""
    layers = {
        name: changed(line, source="mse")
        if line.block_size and not (name in setting.given.layers and setting.given.layers[name].source)
        else line
        for name, line in state.plan.layers.items()
    }
    plan = changed(state.plan, layers=layers)
    return None if plan == state.plan else replace(state, plan=plan)
