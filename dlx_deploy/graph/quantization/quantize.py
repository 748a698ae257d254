"""Calibrate → plan → place → write: a float32 graph in the precision that was asked for."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.graph.model import load, opset, to_bytes
from dlx_deploy.graph.passes.base import Pass, run_passes
from dlx_deploy.graph.passes.fence import FENCE
from dlx_deploy.graph.passes.half import HalfKind, float_tensors, half_precision
from dlx_deploy.graph.passes.nbits import as_matmul_nbits
from dlx_deploy.graph.passes.tidy import TIDY
from dlx_deploy.graph.quantization.beside import apart
from dlx_deploy.graph.quantization.fit import check_layers, check_names
from dlx_deploy.graph.quantization.integers import int8_of
from dlx_deploy.graph.quantization.kit.decisions import Decisions
from dlx_deploy.graph.quantization.layers import layer_precision
from dlx_deploy.graph.quantization.plan import SCHEMA, LayerPlan, Precision, QuantizationPlan
from dlx_deploy.graph.quantization.ranges import Ranges, collect_ranges
from dlx_deploy.graph.quantization.request import (
    NothingToQuantize,
    QuantizationRequest,
    nothing_in_bf16,
    nothing_to_quantize,
)
from dlx_deploy.graph.quantization.rules import TENSORRT_RULES
from dlx_deploy.graph.samples import Samples
from dlx_deploy.progress import Progress, silent

_log = logging.getLogger(__name__)

__all__ = ["NothingToQuantize", "QuantizationReport", "QuantizationRequest", "quantize_model", "unquantized"]

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
    int8 = int8_of(model, samples, request, progress)
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
