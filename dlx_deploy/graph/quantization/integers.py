"""What writes integers, or FP8, into a graph: where Q/DQ go, by which plan, and the passes that put them there."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index
from dlx_deploy.graph.passes.base import Pass
from dlx_deploy.graph.passes.seams import divided
from dlx_deploy.graph.quantization.beside import apart
from dlx_deploy.graph.quantization.blocks import unblocked
from dlx_deploy.graph.quantization.dynamic import dynamic_layers, quantize_dynamically
from dlx_deploy.graph.quantization.fit import (
    check_bias,
    check_divided,
    check_layers,
    check_names,
    check_scheme,
    check_tensors,
)
from dlx_deploy.graph.quantization.kit.decisions import Decisions
from dlx_deploy.graph.quantization.kit.efforts import Effort, steps_again, steps_in
from dlx_deploy.graph.quantization.kit.first_ranges import first_ranges
from dlx_deploy.graph.quantization.kit.runner import improve
from dlx_deploy.graph.quantization.kit.state import Setting, State
from dlx_deploy.graph.quantization.layers import dense_heads, excluded, image_layers, quantizable
from dlx_deploy.graph.quantization.placement import Placement, narrowed, place
from dlx_deploy.graph.quantization.plan import SCHEMA, Divided, LayerPlan, QuantizationPlan
from dlx_deploy.graph.quantization.planning import scale_of
from dlx_deploy.graph.quantization.ranges import Ranges
from dlx_deploy.graph.quantization.request import QuantizationRequest, nothing_to_quantize
from dlx_deploy.graph.quantization.scheme import CPU, CPU_DYNAMIC, Scheme
from dlx_deploy.graph.samples import Samples
from dlx_deploy.progress import Progress

__all__ = ["Int8", "as_divided", "int8_of", "setting_for"]


def setting_for(model: ModelProto, samples: Samples, request: QuantizationRequest) -> Setting:
    """The form of ``model``'s static INT8 and where it is, as ``quantize_model`` would write it.

    Raises:
        ConfigError: as ``quantize_model``. NothingToQuantize: no layer can be INT8.
    """
    request, _ = apart(request)
    scheme, given = request.scheme, request.given
    assert scheme is not None
    assert scheme is not CPU_DYNAMIC
    matched = excluded(model, request.exclude)
    check_scheme(given, scheme.name)
    check_names(model, given)
    check_layers(model, given, scheme, request.halves, matched)
    placement = _placement(model, scheme, request, matched)
    if not placement.weights:
        raise nothing_to_quantize(model, request)
    check_divided(model, given)
    return Setting(scheme, placement, given, samples, request.methods, request.rounding)


def as_divided(model: ModelProto, given: QuantizationPlan) -> ModelProto:
    """``model`` with the channels divided that ``given``, which fits it, divides; itself where it divides none."""
    return divided(model, _factors(given)) if given.divided else model


def _factors(given: QuantizationPlan) -> dict[str, NDArray[np.float32]]:
    return {name: np.asarray(entry.by, np.float32) for name, entry in given.divided.items()}


@dataclass(frozen=True)
class Int8:
    """The graph to write and the passes that write INT8 into it, if any; and what they follow."""

    model: ModelProto
    passes: tuple[Pass, ...] = ()
    ranges: Ranges = field(default_factory=Ranges)
    plan: QuantizationPlan = field(default_factory=lambda: QuantizationPlan(schema=SCHEMA))
    decisions: Decisions = field(default_factory=Decisions)
    seconds: Mapping[str, float] = field(default_factory=dict)
    rounded: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)


def int8_of(model: ModelProto, samples: Samples, request: QuantizationRequest, progress: Progress) -> Int8:
    """What writes INT8, if any is asked for and the plan that was given can be followed."""
    scheme, given = request.scheme, request.given
    if scheme is not None and scheme is not CPU_DYNAMIC:
        return _static(model, samples, request, progress)
    matched = excluded(model, request.exclude) if scheme else set()
    check_scheme(given, scheme.name if scheme else "")
    check_names(model, given)
    check_layers(model, given, scheme, request.halves, matched)
    return _dynamic(model, request, matched) if scheme else Int8(model)


def _dynamic(model: ModelProto, request: QuantizationRequest, matched: set[str]) -> Int8:
    for name in request.given.tensors:
        raise ConfigError(
            f"quantize.plan: tensors[{name!r}]: dynamic activations have no scale of their own; set "
            "quantize.activations to 'static', or leave tensors out"
        )
    names = dynamic_layers(model, matched | set(request.given.layers_at("fp16", "fp32")))
    if not names:
        raise nothing_to_quantize(model, request)
    layers = dict.fromkeys(names, LayerPlan(source="max"))
    reduced = CPU_DYNAMIC.weight_levels < CPU.weight_levels
    step = Pass("int8-dynamic", lambda graph: quantize_dynamically(graph, names, reduced))
    plan = QuantizationPlan(schema=SCHEMA, scheme=CPU_DYNAMIC.name, layers=layers)
    note = "dynamic activations have no scales to improve" if request.effort != "fast" else ""
    return Int8(model, (step,), plan=plan, decisions=Decisions(effort=request.effort, note=note))


def _static(model: ModelProto, samples: Samples, request: QuantizationRequest, progress: Progress) -> Int8:
    setting = setting_for(model, samples, request)
    model = as_divided(model, request.given)
    scheme, given, method = setting.scheme, request.given, request.method
    steps = steps_in(scheme.precision, request.effort, method)
    ahead: Effort = request.effort if scheme.precision == "int8" else "fast"
    if request.again:
        steps, ahead = steps_again(request.effort), "fast"
    ranges = first_ranges(model, samples, setting, ahead, method, progress)
    plan = setting.planned(model, ranges, method)
    _check_biases(model, scheme, given, plan)
    state, decisions, seconds = State(model, plan, ranges, method, _factors(given)), Decisions(), dict[str, float]()
    if steps:
        exact = request.style == "tensorrt" or scheme.block_size > 0
        found = improve(state, setting, steps, samples, exact, progress)
        state, seconds = found.state, dict(found.seconds)
        decisions = replace(found.decisions, effort=request.effort)
    write = Pass(scheme.precision, lambda graph: setting.write_int8(graph, state), requires=_nameless)
    factors = {name: Divided(by=tuple(by.tolist())) for name, by in state.divided.items()}
    plan = replace(state.plan, divided=factors)
    return Int8(state.model, (write,), state.ranges, plan, decisions, seconds, state.rounded)


def _placement(model: ModelProto, scheme: Scheme, request: QuantizationRequest, matched: set[str]) -> Placement:
    """Where Q/DQ go, once it is known that the plan that was given can be followed."""
    index, given = Index(model), request.given
    left_out = matched | set(given.layers_at("fp16", "fp32"))
    if scheme.block_size:
        left_out |= unblocked(index, scheme.block_size, given)
    if scheme.placement == "kernels":
        left_out |= (dense_heads(index) | image_layers(model, request.kernels)) - set(given.layers_at("int8"))
    skipped = [name for name, tensor in given.tensors.items() if tensor.precision == "fp32"]
    wanted = {name: tensor.readers for name, tensor in given.tensors.items()}
    put = functools.partial(place, model, scheme.placement, kernels=request.kernels)
    whole = put(quantizable(index, matched), (), matched)
    actual = narrowed(put(quantizable(index, left_out), skipped, left_out), wanted)
    if given.tensors:
        check_tensors(model, given, scheme, (whole, actual), list(request.methods))
    return actual


def _check_biases(model: ModelProto, scheme: Scheme, given: QuantizationPlan, plan: QuantizationPlan) -> None:
    """Scales that were given are kept as they are, so they must leave room for the biases."""
    if scheme.biases != "int32":
        return
    reads = {node.name: node.input[0] for node in model.graph.node if node.input}
    for name, layer in given.layers.items():
        if layer.scales and name in plan.layers:
            check_bias(model, name, plan.layers[name].scales, float(scale_of(plan, reads[name])))


def _nameless(model: ModelProto) -> Sequence[str]:
    """Plans and placements go by names of nodes."""
    counts = Counter(node.name for node in model.graph.node)
    return [f"{count} nodes are named {name!r}" for name, count in counts.items() if count > 1 or not name]
