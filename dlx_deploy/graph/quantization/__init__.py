"""The precision plan of an ONNX classifier written into its graph: static INT8 in two styles, FP16 elsewhere; no torch.

``tensorrt``: explicit symmetric Q/DQ that TensorRT 8.5 to 11 read alike. ``cpu``: what ONNX Runtime's kernels run fast.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnx import ModelProto

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import Index, load, to_bytes
from dlx_deploy.graph.passes.base import Pass, run_passes
from dlx_deploy.graph.passes.half import float_tensors, half_precision
from dlx_deploy.graph.passes.tidy import TIDY
from dlx_deploy.graph.quantization import cpu_style, tensorrt_style
from dlx_deploy.graph.quantization.calibrate import Method, Ranges, activation_ranges
from dlx_deploy.graph.quantization.placement import WEIGHTED, excluded, layer_precision, quantizable
from dlx_deploy.graph.quantization.rules import TENSORRT_RULES, check_tensorrt_rules
from dlx_deploy.graph.samples import Samples

__all__ = [
    "Method",
    "NothingToQuantize",
    "QuantizationPlan",
    "QuantizationReport",
    "Ranges",
    "activation_ranges",
    "check_tensorrt_rules",
    "layer_precision",
    "quantize_model",
]

OVERFLOW_IMAGES = 64
"""Images on which tensors are looked at for overflow in half precision, which has headroom for what they miss."""

OVERFLOW_BATCH = 4
"""Every tensor of the network is in memory at once while all are looked at."""


class NothingToQuantize(StageFailed):
    """INT8 was planned, and the graph has no layer that it could be."""


@dataclass(frozen=True)
class QuantizationPlan:
    """What to do: the style, how ranges are found, and node-name patterns (fnmatch) that stay in floating point.

    ``reduce_range`` concerns the CPU style alone. ``int8`` and ``half`` say which precisions are used beside float32;
    the graph becomes strongly typed, that is, holds every type itself. ``dynamic`` finds the ranges of activations
    while the network runs, instead of by calibration; in the CPU style alone.
    """

    style: Literal["tensorrt", "cpu"]
    int8: bool = True
    half: bool = False
    reduce_range: bool = False
    method: Method = "minmax"
    dynamic: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuantizationReport:
    """What was done: node name → ``int8``, ``fp16`` or ``fp32`` for each layer with weights, and how many tensors got
    Q/DQ."""

    layers: dict[str, str]
    activations: int

    @property
    def int8_share(self) -> float:
        """The share of layers (0..1) that compute on int8."""
        return sum(p == "int8" for p in self.layers.values()) / len(self.layers) if self.layers else 0.0


def quantize_model(source: Path, out: Path, samples: Samples, plan: QuantizationPlan) -> QuantizationReport:
    """Write the float32 model in ``source`` as ``plan`` says, calibrated on ``samples``.

    Raises:
        ConfigError: no images, or a pattern in ``plan.exclude`` matches no node.
        NothingToQuantize: no layer of the graph that was written computes on int8.
        StageFailed: the result breaks a rule of the target's parser.
    """
    model = load(source)
    planned = run_passes(load(model), _passes(model, samples, plan), source.name)
    layers = layer_precision(planned)
    if plan.int8 and "int8" not in layers.values():
        raise _nothing(model, plan)
    out.write_bytes(to_bytes(planned))
    activations = sum(n.op_type == "QuantizeLinear" for n in planned.graph.node)
    return QuantizationReport(layers=layers, activations=activations)


def _passes(model: ModelProto, samples: Samples, plan: QuantizationPlan) -> list[Pass]:
    """What ``plan`` does to ``model``, in order."""
    passes = []
    if plan.int8:
        passes.append(Pass("int8", lambda graph: _quantized(graph, samples, plan)))
    if plan.half:
        passes.append(Pass("half-precision", lambda graph: half_precision(graph, _magnitudes(model, samples))))
    passes.append(TIDY)
    if plan.style == "tensorrt":
        passes.append(TENSORRT_RULES)
    return passes


def _quantized(model: ModelProto, samples: Samples, plan: QuantizationPlan) -> ModelProto:
    tensorrt = plan.style == "tensorrt"
    if plan.dynamic and not tensorrt:
        # Always with a reduced range: no exact arithmetic stands in where this machine's integer product saturates.
        return cpu_style.quantize_dynamically(model, True, plan.exclude)
    tensors = (tensorrt_style if tensorrt else cpu_style).tensors_to_quantize(model, plan.exclude)
    if not tensors:
        raise _nothing(model, plan)
    ranges = activation_ranges(model, samples, tensors, plan.method, symmetric=tensorrt)
    if tensorrt:
        return tensorrt_style.insert_qdq(model, ranges, plan.exclude, plan.half)
    return cpu_style.quantize(model, ranges, plan.reduce_range, plan.exclude)


def _nothing(model: ModelProto, plan: QuantizationPlan) -> NothingToQuantize:
    """What was asked of which layers, and the key that has to change."""
    kinds = Counter(node.op_type for node in model.graph.node if node.op_type in WEIGHTED)
    there = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "no layer with weights"
    rule = "Conv, Gemm and MatMul with constant weights become INT8"
    remedy = "set quantize.precision = 'fp32'"
    if plan.dynamic:
        rule = "with dynamic activations only a MatMul with constant weights becomes INT8"
        if quantizable(Index(model), excluded(model, plan.exclude)):
            remedy = "set quantize.activations = 'static'"
    return NothingToQuantize(
        f"no layer is left to quantize (quantize.exclude = {list(plan.exclude)!r}; the graph has {there}); "
        f"rule: {rule}; {remedy}"
    )


def _magnitudes(model: ModelProto, samples: Samples) -> dict[str, float]:
    """The largest magnitude of every float32 tensor on some of the samples."""
    some, tensors = samples[:OVERFLOW_IMAGES], float_tensors(model)
    ranges = activation_ranges(model, some, tensors, "minmax", symmetric=False, largest_batch=OVERFLOW_BATCH)
    return {name: max(abs(low), abs(high)) for name, (low, high) in ranges.items()}
