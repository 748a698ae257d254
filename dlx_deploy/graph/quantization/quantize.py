"""Calibrate → plan → place → write: a float32 graph in the precision that was asked for."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index, load, opset, to_bytes
from dlx_deploy.graph.passes.base import Pass, run_passes
from dlx_deploy.graph.passes.fence import FENCE
from dlx_deploy.graph.passes.half import HalfKind, float_tensors, half_precision
from dlx_deploy.graph.passes.nbits import as_matmul_nbits
from dlx_deploy.graph.passes.seams import divided
from dlx_deploy.graph.passes.tidy import TIDY
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
from dlx_deploy.graph.quantization.layers import dense_heads, excluded, image_layers, layer_precision, quantizable
from dlx_deploy.graph.quantization.placement import Placement, narrowed, place
from dlx_deploy.graph.quantization.plan import SCHEMA, Divided, LayerPlan, Precision, QuantizationPlan
from dlx_deploy.graph.quantization.planning import scale_of
from dlx_deploy.graph.quantization.ranges import Ranges, collect_ranges
from dlx_deploy.graph.quantization.request import (
    NothingToQuantize,
    QuantizationRequest,
    nothing_in_bf16,
    nothing_to_quantize,
)
from dlx_deploy.graph.quantization.rules import TENSORRT_RULES
from dlx_deploy.graph.quantization.scheme import CPU, CPU_DYNAMIC, Scheme
from dlx_deploy.graph.samples import Samples
from dlx_deploy.progress import Progress, silent

_log = logging.getLogger(__name__)

__all__ = [
    "NothingToQuantize",
    "QuantizationReport",
    "QuantizationRequest",
    "as_divided",
    "quantize_model",
    "setting_for",
    "unquantized",
]

OVERFLOW_IMAGES = 64
"""Images on which tensors are looked at for overflow in half precision, which has headroom for what they miss."""

SHOWN = 3
"""Names in a warning."""
OVERFLOW_BATCH = 4
"""Every tensor of the network is in memory at once while all are looked at."""


@dataclass(frozen=True)
class QuantizationReport:
    """What was done: ``plan`` in full, the ``ranges`` it rests on, and how many activations got Q/DQ.

    ``layers``: node name → ``int8``, ``int4``, ``fp8``, ``fp16`` or ``fp32`` for each layer with weights, as the graph
    has it.
    ``decisions``: what was tried to make the integers better, and ``seconds`` of CPU time for each. ``rounded``: of
    layers, the integers of their weights, where they are not the nearest.
    """

    layers: Mapping[str, str]
    activations: int
    ranges: Ranges
    plan: QuantizationPlan
    decisions: Decisions = field(default_factory=Decisions)
    seconds: Mapping[str, float] = field(default_factory=dict)
    rounded: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)

    @property
    def int8_share(self) -> float:
        """The share of layers (0..1) that compute on int8."""
        return sum(p == "int8" for p in self.layers.values()) / len(self.layers) if self.layers else 0.0


def quantize_model(
    source: Path, out: Path, samples: Samples, request: QuantizationRequest, progress: Progress = silent
) -> QuantizationReport:
    """Write the float32 model in ``source`` as ``request`` says, calibrated on ``samples``.

    Raises:
        ConfigError: no images, a pattern in ``request.exclude`` matches no node, or ``request.given`` does not fit.
        NothingToQuantize: no layer of the graph that was written computes on int8.
        StageFailed: the result breaks a rule of the target's parser.
    """
    model = load(source)
    request, beside = apart(request)
    blocks, lines = beside.planned(model, request.exclude)
    int8 = _int8(model, samples, request, progress)
    model, passes = int8.model, [*int8.passes, *blocks]
    if request.half or request.bf16:
        kept = request.given.layers_at("fp32")
        kind: HalfKind = "bf16" if request.bf16 else "fp16"
        largest = functools.partial(_magnitudes, model, samples)
        passes.append(Pass("half-precision", lambda graph: half_precision(graph, largest(), kept, kind)))
    passes.append(TIDY)
    if request.style == "tensorrt":
        passes += [FENCE, TENSORRT_RULES]
    elif request.block_size or blocks:
        passes.insert(-1, as_matmul_nbits(opset(model)))
    written = run_passes(load(model), passes, source.name)
    layers = layer_precision(written)
    if request.bf16:
        _check_bf16(layers, opset(model))
    if request.scheme is not None and not {"int8", "int4", "fp8"} & set(layers.values()):
        raise nothing_to_quantize(model, request)
    out.write_bytes(to_bytes(written))
    activations = sum(node.op_type == "QuantizeLinear" for node in written.graph.node)
    plan = _with_layers(int8.plan, layers)
    plan = replace(plan, layers={**plan.layers, **lines})
    return QuantizationReport(
        layers, activations, int8.ranges, plan, int8.decisions, int8.seconds, rounded=int8.rounded
    )


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


def unquantized(source: Path, given: QuantizationPlan) -> QuantizationReport:
    """What there is to report of the float32 model in ``source``, as it is.

    Raises:
        ConfigError: ``given`` does not fit: a layer is not fp32, or is none of the graph's.
    """
    model = load(source)
    check_names(model, given)
    check_layers(model, given, None, (), set())
    layers = layer_precision(model)
    return QuantizationReport(layers, 0, Ranges(), _with_layers(QuantizationPlan(schema=SCHEMA), layers))


@dataclass(frozen=True)
class _Int8:
    """The graph to write and the passes that write INT8 into it, if any; and what they follow."""

    model: ModelProto
    passes: tuple[Pass, ...] = ()
    ranges: Ranges = field(default_factory=Ranges)
    plan: QuantizationPlan = field(default_factory=lambda: QuantizationPlan(schema=SCHEMA))
    decisions: Decisions = field(default_factory=Decisions)
    seconds: Mapping[str, float] = field(default_factory=dict)
    rounded: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)


def _int8(model: ModelProto, samples: Samples, request: QuantizationRequest, progress: Progress) -> _Int8:
    """What writes INT8, if any is asked for and the plan that was given can be followed."""
    scheme, given = request.scheme, request.given
    if scheme is not None and scheme is not CPU_DYNAMIC:
        return _static(model, samples, request, progress)
    matched = excluded(model, request.exclude) if scheme else set()
    check_scheme(given, scheme.name if scheme else "")
    check_names(model, given)
    check_layers(model, given, scheme, request.halves, matched)
    return _dynamic(model, request, matched) if scheme else _Int8(model)


def _dynamic(model: ModelProto, request: QuantizationRequest, matched: set[str]) -> _Int8:
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
    return _Int8(model, (step,), plan=plan, decisions=Decisions(effort=request.effort, note=note))


def _static(model: ModelProto, samples: Samples, request: QuantizationRequest, progress: Progress) -> _Int8:
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
    return _Int8(state.model, (write,), state.ranges, plan, decisions, seconds, state.rounded)


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


def _with_layers(plan: QuantizationPlan, layers: Mapping[str, str]) -> QuantizationPlan:
    """The plan with the precision of every layer, as the graph has it."""
    rest = {name: LayerPlan(precision=_floating(kind)) for name, kind in layers.items()}
    return replace(plan, layers={**rest, **plan.layers})


def _check_bf16(layers: Mapping[str, str], at: int) -> None:
    """Raises where no layer is in BF16, and says how many are not."""
    if "bf16" not in layers.values():
        raise nothing_in_bf16(at)
    if left := [name for name, kind in layers.items() if kind == "fp32"]:
        shown = ", ".join(left[:SHOWN]) + (" …" if len(left) > SHOWN else "")
        _log.warning(
            "%d of %d layers stay in FP32 (%s); at opset %d: Conv can from 22 on", len(left), len(layers), shown, at
        )


def _floating(kind: str) -> Precision:
    return "fp16" if kind == "fp16" else "bf16" if kind == "bf16" else "fp32"


def _magnitudes(model: ModelProto, samples: Samples) -> dict[str, float]:
    """The largest magnitude of every float32 tensor on some of the samples."""
    asked = dict.fromkeys(float_tensors(model), ("minmax",))
    some = samples[:OVERFLOW_IMAGES]
    ranges = collect_ranges(model, some, asked, symmetric=False, largest_batch=OVERFLOW_BATCH)
    return {name: max(abs(low), abs(high)) for name, (low, high) in ranges.of("minmax").items()}
