"""A plan with some of its layers in floating point: what is given back to have them so."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec.structs import replace as with_fields

from dlx_deploy.graph.model import WEIGHTED, Index, load
from dlx_deploy.graph.quantization.integers import setting_for
from dlx_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan, TensorPlan
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.graph.samples import Samples

__all__ = ["Planned", "islands", "layer_groups", "without"]


@dataclass(frozen=True)
class Planned:
    """The float32 model in ``source``, what was asked for, and the plan in full that ``quantize_model`` reported.

    ``calibration``: the inputs that a tensor is calibrated on where the plan has no numbers for it.
    """

    source: Path
    request: QuantizationRequest
    plan: QuantizationPlan
    calibration: Samples


def layer_groups(planned: Planned) -> list[tuple[str, ...]]:
    """The layers on int8, in graph order; those that share their weights go together."""
    groups: dict[str, list[str]] = {}
    int8 = set(planned.plan.layers_at("int8"))
    for node in load(planned.source).graph.node:
        if node.name in int8 and node.op_type in WEIGHTED:
            groups.setdefault(node.input[1], []).append(node.name)
    return [tuple(names) for names in groups.values()]


def islands(planned: Planned, floating: Collection[str]) -> tuple[str, ...]:
    """The INT8 layers of the plan with nothing around them but layers in ``floating``, inputs and outputs of the graph.

    Such a layer makes integers of what comes in and numbers of what goes out, which may cost more than it saves.
    """
    around = _neighbours(Index(load(planned.source)))
    int8 = set(planned.plan.layers_at("int8")) - set(floating)
    alone = [group for group in layer_groups(planned) if int8.issuperset(group)]
    return tuple(name for group in alone if not any(around[name] & int8 for name in group) for name in group)


def _neighbours(index: Index) -> dict[str, set[str]]:
    """Layer → the layers that it reads and that read it, whatever lies between."""
    around: dict[str, set[str]] = {}
    behind: dict[str, set[str]] = {}  # tensor → the last layers on all ways to it
    for node in index.model.graph.node:
        sources = set[str]().union(*(behind.get(name, ()) for name in node.input))
        if node.op_type in WEIGHTED and node.input[1] in index.initializers:
            around[node.name] = sources
            for name in sources:
                around[name].add(node.name)
            sources = {node.name}
        behind.update(dict.fromkeys(node.output, sources))
    return around


def without(planned: Planned, layers: Collection[str]) -> QuantizationRequest:
    """What makes the graph of the plan, but with ``layers`` in floating point.

    The plan's numbers stay. What only the new graph quantizes, such as the other input of a residual sum, is left to
    calibration.
    """
    request, plan = planned.request, planned.plan
    floating = LayerPlan(precision="fp16" if request.half else "fp32")
    lines = {
        name: floating if name in layers or line.precision == "fp16" else line for name, line in plan.layers.items()
    }
    asked = request.given.tensors
    left = {name: line for name, line in asked.items() if line.precision == "fp32"}
    given = with_fields(plan, tensors=left, layers=lines)
    if not plan.tensors:  # dynamic activations have no scales
        return replace(request, given=given)
    placement = setting_for(load(planned.source), planned.calibration, replace(request, given=given)).placement
    numbers = {
        name: with_fields(_numbers(plan, name), readers=asked[name].readers if name in asked else ())
        for name, pair in placement.pairs.items()
        if not pair.like and name in plan.tensors
    }
    return replace(request, given=with_fields(given, tensors={**left, **numbers}))


def _numbers(plan: QuantizationPlan, tensor: str) -> TensorPlan:
    """Those of an activation, its own or what it shares."""
    entry = plan.tensors[tensor]
    while entry.like:
        entry = plan.tensors[entry.like]
    return entry
