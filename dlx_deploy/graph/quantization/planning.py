"""From what was measured, and what was given, to a plan in which every number stands."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization.blocks import LEVELS, block_scales
from dlx_deploy.graph.quantization.placement import Placement
from dlx_deploy.graph.quantization.plan import (
    SCHEMA,
    ActivationBits,
    LayerPlan,
    QuantizationPlan,
    TensorPlan,
    WeightBits,
)
from dlx_deploy.graph.quantization.ranges import Range, Ranges
from dlx_deploy.graph.quantization.scheme import LARGEST_FP8, LARGEST_HALF_SCALE, SMALLEST_HALF_SCALE, Scheme

__all__ = [
    "LARGEST_BIAS",
    "asked_methods",
    "bias_of",
    "integer_limits",
    "make_plan",
    "scale_of",
    "weight_levels",
    "weight_scales",
    "with_room_for_bias",
]

LARGEST_BIAS = float(np.iinfo(np.int32).max)
FULL_BITS: Final = 8
"""Scales in a plan are for so many where it says none."""
INT8_REACH = 128
"""What ``LARGEST_HALF_SCALE`` is for."""
BIAS_ROOM = 1.0001
"""How much larger the scale of a bias is than it must be, so that rounding does not lead over the end."""


def asked_methods(placement: Placement, given: QuantizationPlan, method: str) -> dict[str, tuple[str, ...]]:
    """Tensor → the methods to calibrate it with: ``method`` but where ``given`` names another, or has the numbers."""
    asked: dict[str, tuple[str, ...]] = {}
    for name in placement.own:
        entry = given.tensors.get(name, TensorPlan())
        if entry.scale is None:
            asked[name] = (entry.source or method,)
    return asked


def make_plan(
    model: ModelProto, scheme: Scheme, placement: Placement, ranges: Ranges, given: QuantizationPlan, method: str
) -> QuantizationPlan:
    """The plan for what ``placement`` names: numbers as ``given``, and else from ``ranges`` and the weights."""
    tensors = {}
    for name, pair in placement.pairs.items():
        entry = given.tensors.get(name, TensorPlan())
        source = entry.source or method
        if pair.like:
            planned = TensorPlan(like=pair.like)
        elif entry.scale is None:
            planned = _tensor(scheme, ranges.tensors[name][source], source, entry.bits or scheme.activation_bits)
        else:
            planned = _given(scheme, entry)
        tensors[name] = msgspec.structs.replace(planned, readers=pair.readers)
    drafted = QuantizationPlan(schema=SCHEMA, scheme=scheme.name, tensors=tensors)
    index = Index(model)
    layers = _layers(index, scheme, placement, given, drafted)
    return msgspec.structs.replace(drafted, layers=layers)


def scale_of(plan: QuantizationPlan, tensor: str) -> np.float32:
    """The scale of an activation, its own or the one that it shares."""
    entry = plan.tensors[tensor]
    while entry.like:
        entry = plan.tensors[entry.like]
    assert entry.scale is not None
    return np.float32(entry.scale)


def weight_levels(scheme: Scheme, layer: LayerPlan) -> int:
    """The largest integer of the layer's weights: 7 of 4 bits, whose smallest is -7; of E4M3 the largest number."""
    if layer.block_size:
        return LEVELS
    if scheme.activations == "fp8":
        return LARGEST_FP8
    bits = layer.weight_bits or FULL_BITS
    return min(scheme.weight_levels, (1 << bits - 1) - 1)


def integer_limits(scheme: Scheme, bits: int | None) -> tuple[int, int]:
    """The smallest and the largest integer of an activation of so many bits (``None``: 8), or number of E4M3."""
    if scheme.activations == "fp8":
        return -LARGEST_FP8, LARGEST_FP8
    info, unused = np.iinfo(scheme.activations), FULL_BITS - (bits or FULL_BITS)
    return int(info.min) >> unused, int(info.max) >> unused


def bias_of(index: Index, node: NodeProto) -> NDArray[np.float32] | None:
    """float32[channels]: the constant bias of a layer that can be written as integers, if it has one."""
    name = node.input[2] if len(node.input) > 2 else ""
    if node.op_type == "MatMul" or name not in index.initializers:
        return None
    bias = index.array(name)
    return bias.astype(np.float32) if bias.dtype == np.float32 and bias.ndim == 1 else None


def _tensor(scheme: Scheme, bounds: Range, source: str, bits: ActivationBits) -> TensorPlan:
    """Scale and zero point for a range, in which 0 is an integer's value: of a symmetric int8 it is -127..127."""
    low, high = min(np.float32(bounds[0]), np.float32(0)), max(np.float32(bounds[1]), np.float32(0))
    smallest, largest = integer_limits(scheme, bits)
    if scheme.symmetric:
        scale, zero_point = np.float64(max(-low, high)) / largest, 0
    else:
        scale = (np.float64(high) - np.float64(low)) / (largest - smallest)
        zero_point = round(float(smallest - low / scale)) if scale >= scheme.smallest_scale else 0
    said = bits if bits < FULL_BITS else None
    return TensorPlan(scale=float(_scales(scheme, scale)), zero_point=zero_point, source=source, bits=said)


def _given(scheme: Scheme, entry: TensorPlan) -> TensorPlan:
    scale = _scales(scheme, np.float64(entry.scale or 0.0))
    source, said = entry.source or "given", entry.bits if entry.bits != FULL_BITS else None
    return TensorPlan(scale=float(scale), zero_point=entry.zero_point or 0, source=source, bits=said)


def _scales(scheme: Scheme, scales: NDArray[np.float64] | np.float64) -> NDArray[np.float32]:
    """float32, same shape, all above 0, and numbers that float16 holds where the scheme says so.

    But for those of tensors that reach beyond float16, which stay in float32 with all that reads them.
    """
    kept = np.where(scales < scheme.smallest_scale, scheme.empty_scale, scales).astype(np.float32)
    if scheme.half_scales:
        largest = LARGEST_HALF_SCALE * INT8_REACH / LARGEST_FP8 if scheme.activations == "fp8" else LARGEST_HALF_SCALE
        held = np.clip(kept, SMALLEST_HALF_SCALE, largest).astype(np.float16).astype(np.float32)
        kept = np.where(kept > largest, kept, held)
    return np.asarray(kept, dtype=np.float32)


def _layers(
    index: Index, scheme: Scheme, placement: Placement, given: QuantizationPlan, drafted: QuantizationPlan
) -> dict[str, LayerPlan]:
    """The layers on int8 with the scales of their weights, which layers that share them have in common."""
    nodes = {node.name: node for node in index.model.graph.node}
    layers: dict[str, LayerPlan] = {}
    for weights in placement.weights:
        if scheme.block_size:
            layers.update((name, _blocks(scheme, given.layers.get(name, LayerPlan()))) for name in weights.layers)
            continue
        entries = [given.layers.get(name, LayerPlan()) for name in weights.layers]
        entry = next((entry for entry in entries if entry.scales), LayerPlan(source="max"))
        unsaid: WeightBits = FULL_BITS if entry.scales else scheme.weight_bits
        bits = next((entry.weight_bits for entry in entries if entry.weight_bits), unsaid)
        entry = msgspec.structs.replace(entry, weight_bits=bits)
        if entry.scales:
            scales = _scales(scheme, np.asarray(entry.scales, np.float64))
        else:
            weight = index.array(weights.tensor).astype(np.float32)
            others = tuple(axis for axis in range(weight.ndim) if axis != weights.axis)
            scales = _scales(scheme, np.abs(weight).max(axis=others).astype(np.float64) / weight_levels(scheme, entry))
            for name in weights.layers:
                scales = with_room_for_bias(index, scheme, nodes[name], drafted, scales)
        planned = LayerPlan(
            precision=scheme.precision,
            source=entry.source or "given",
            scales=tuple(float(scale) for scale in scales),
            weight_bits=None if bits == FULL_BITS else bits,
        )
        layers.update(dict.fromkeys(weights.layers, planned))
    return layers


def _blocks(scheme: Scheme, given: LayerPlan) -> LayerPlan:
    """The line of a layer with INT4 weights, whose scales follow from them."""
    assert scheme.block_size
    size = given.block_size or scheme.block_size
    return LayerPlan(precision="int4", source=given.source or "max", block_size=size)


def weight_scales(
    scheme: Scheme, layer: LayerPlan, weight: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Those that are stored, and the same in the shape of ``weight``, or one that broadcasts to it.

    ``axis``: that of the output channels in ``weight``.
    """
    if layer.block_size:
        stored = block_scales(weight, 1 - axis, layer.block_size, layer.source, scheme.half_scales)
        return stored, np.repeat(stored, layer.block_size, axis=1 - axis)
    scales = np.asarray(layer.scales, dtype=np.float32)
    return scales, scales.reshape([-1 if at == axis else 1 for at in range(weight.ndim)])


def with_room_for_bias(
    index: Index, scheme: Scheme, node: NodeProto, plan: QuantizationPlan, scales: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Larger scales where the bias in units of input times weight would not fit into 32 bits.

    A channel whose weights are nearly nothing beside its bias has such a small scale.
    """
    bias = bias_of(index, node)
    if scheme.biases != "int32" or bias is None or bias.size != scales.size:
        return scales
    units = np.float64(scale_of(plan, node.input[0])) * scales.astype(np.float64)
    needed = (BIAS_ROOM * (2 * np.abs(bias))).astype(np.float64) / (2 * LARGEST_BIAS)
    grown = (scales.astype(np.float64) * (needed / units)).astype(np.float32)
    return np.where(units < needed, grown, scales)
