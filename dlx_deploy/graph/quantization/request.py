"""What is asked of quantization, and what there is to say where no layer can be INT8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from onnx import ModelProto

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import WEIGHTED, Index
from dlx_deploy.graph.quantization.kit.efforts import Effort
from dlx_deploy.graph.quantization.layers import excluded, quantizable
from dlx_deploy.graph.quantization.observers import METHODS, RangeMethod
from dlx_deploy.graph.quantization.plan import SCHEMA, ActivationBits, QuantizationPlan, WeightBits
from dlx_deploy.graph.quantization.rounding import Rounding, nearest
from dlx_deploy.graph.quantization.scheme import (
    BLOCKS,
    CPU,
    CPU_DYNAMIC,
    CPU_REDUCED,
    FP8,
    TENSORRT,
    TENSORRT_HALF,
    Scheme,
)
from dlx_deploy.targets.kernels import NOT_MEASURED, IntegerKernels
from dlx_deploy.targets.profile import Style

__all__ = ["NothingToQuantize", "QuantizationRequest", "nothing_in_bf16", "nothing_to_quantize"]


class NothingToQuantize(StageFailed):
    """INT8 was asked for, and the graph has no layer that it could be."""


@dataclass(frozen=True)
class QuantizationRequest:
    """What to do: the style, how ranges are found, and node-name patterns (fnmatch) that stay in floating point.

    ``int8`` and ``half`` say which precisions are used beside float32; the graph becomes strongly typed, that is, holds
    every type itself. ``dynamic`` finds the ranges of activations while the network runs, instead of by calibration.
    ``reduce_range`` and ``dynamic`` concern the CPU style alone. ``given`` is the plan, or the part of it, that is not
    to be found here. ``method`` is one of ``methods``. ``effort``: how much is tried to make integers better
    (``quantization.kit``); with dynamic activations nothing is. ``weight_bits``: of the weights of INT8 layers of which
    ``given`` says nothing else (4: from -7 to 7, stored as int8). ``block_size``: above 0, weights alone are INT4,
    with a scale for each so many inputs, and nothing is INT8 (``given`` puts both in one graph: ``beside``).
    ``fp8``: E4M3 is written in its place.
    ``activation_bits``: as ``weight_bits``, of activations.
    ``bf16``: half precision is bfloat16; nothing is quantized then.
    ``kernels``: which integer kernels pay beside those of layers (CPU style). ``again``: ``given`` and
    ``rounding`` are what this effort made of the graph with more INT8 layers, so only what rests on all is found anew.
    """

    style: Style
    int8: bool = True
    half: bool = False
    reduce_range: bool = False
    method: str = "minmax"
    dynamic: bool = False
    exclude: tuple[str, ...] = ()
    given: QuantizationPlan = field(default_factory=lambda: QuantizationPlan(schema=SCHEMA))
    methods: Mapping[str, RangeMethod] = field(default_factory=lambda: METHODS)
    rounding: Rounding = nearest
    effort: Effort = "fast"
    weight_bits: WeightBits = 8
    activation_bits: ActivationBits = 8
    block_size: Literal[0, 32, 64, 128] = 0
    fp8: bool = False
    bf16: bool = False
    kernels: IntegerKernels = NOT_MEASURED
    again: bool = False

    @property
    def halves(self) -> tuple[str, ...]:
        """The half precision that the graph holds, if any."""
        return ("bf16",) if self.bf16 else ("fp16",) if self.half else ()

    @property
    def scheme(self) -> Scheme | None:
        """In which integers are written, if they are."""
        if self.block_size:
            return msgspec.structs.replace(BLOCKS, block_size=self.block_size, half_scales=self.half)
        if self.fp8:
            return msgspec.structs.replace(FP8, half_scales=self.half)
        scheme = self._style_scheme
        bits = {"weight_bits": self.weight_bits, "activation_bits": self.activation_bits}
        if scheme is None or set(bits.values()) == {8}:
            return scheme
        return msgspec.structs.replace(scheme, **bits)

    @property
    def _style_scheme(self) -> Scheme | None:
        if not self.int8 or self.bf16:
            return None
        if self.style == "tensorrt":
            return TENSORRT_HALF if self.half else TENSORRT
        if self.dynamic:
            return CPU_DYNAMIC
        return CPU_REDUCED if self.reduce_range else CPU


def nothing_to_quantize(model: ModelProto, request: QuantizationRequest) -> NothingToQuantize:
    """What was asked of which layers, and the key that has to change."""
    asked = "INT4" if request.block_size else "FP8" if request.fp8 else "INT8"
    kinds = Counter(node.op_type for node in model.graph.node if node.op_type in WEIGHTED)
    there = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "no layer with weights"
    rule = f"Conv, Gemm and MatMul with constant weights become {asked}"
    if request.block_size:
        rule = f"Gemm and MatMul of a constant matrix with a multiple of {request.block_size} inputs become INT4"
    remedy = "set quantize.precision = 'fp32'"
    if request.dynamic:
        rule = "with dynamic activations only a MatMul with constant weights becomes INT8"
        if quantizable(Index(model), excluded(model, request.exclude)):
            remedy = "set quantize.activations = 'static'"
    if floats := request.given.layers_at("fp16", "fp32"):
        remedy += f", or let quantize.plan leave some of its {len(floats)} floating-point layers to {asked.lower()}"
    return NothingToQuantize(
        f"no layer is left to quantize (quantize.exclude = {list(request.exclude)!r}; the graph has {there}); "
        f"rule: {rule}; {remedy}"
    )


def nothing_in_bf16(opset: int) -> NothingToQuantize:
    """Why no layer computes in BF16."""
    return NothingToQuantize(
        f"no layer can compute in BF16 at opset {opset}; rule: MatMul and Gemm can from 13 on, Conv from 22 on; set "
        "export.opset = 22, or quantize.precision to 'fp16'"
    )
