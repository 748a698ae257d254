"""Explicit Q/DQ as TensorRT wants it: symmetric, per tensor for activations, weights already folded to int8.

NVIDIA's rules (IQuantizeLayer and IDequantizeLayer, "Explicit Quantization"): zero points are 0, activations have one
scale, weights one per output channel, biases stay in floating point. The scheme is that of Wu et al. 2020
(arXiv 2004.09602): scale = max|x| / 127, round half to even.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index, load, opset
from dlx_deploy.graph.passes.opset import OLDEST
from dlx_deploy.graph.passes.tidy import tidy
from dlx_deploy.graph.quantization.calibrate import Ranges
from dlx_deploy.graph.quantization.placement import excluded, quantizable, residuals, weight_axis

__all__ = ["insert_qdq", "tensors_to_quantize"]

LEVELS = 127
NOTHING = 1e-12
"""A range below this is none: such a tensor gets the scale of a range of ±1."""
SMALLEST_HALF_SCALE = 2.0**-20
"""Of the scales that float16 holds: below, where it is subnormal, fewer than four bits would be left of a scale."""


def tensors_to_quantize(model: ModelProto, exclude: Sequence[str] = ()) -> list[str]:
    """The activations that get a Q/DQ pair, in graph order: what to calibrate."""
    return list(_wanted(Index(model), excluded(model, exclude)))


def insert_qdq(model: ModelProto, ranges: Ranges, exclude: Sequence[str] = (), half_scales: bool = False) -> ModelProto:
    """A copy of ``model`` (float32, opset 13 or newer) whose layers compute on int8, but for those excluded.

    With ``half_scales`` every scale is a number that float16 holds: the graph can be written in half precision later,
    and its integers are those that fit the rounded scales.

    Raises:
        ConfigError: the opset is too old, or a pattern in ``exclude`` matches no node.
    """
    if opset(model) < OLDEST:
        raise ConfigError(f"the graph is at opset {opset(model)}; rule: {OLDEST} or newer for per-channel scales")
    model = load(model)
    index = Index(model)
    left_out = excluded(model, exclude)
    wanted = _wanted(index, left_out)
    pairs = {name: _activation_pair(name, ranges[name], model, half_scales) for name in wanted}
    weights = _Weights(index, quantizable(index, left_out), half_scales)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if node.output[0] in wanted.get(name, ()):
                node.input[position] = pairs[name][-1].output[0]
        nodes += [*weights.folded(node), node]
        nodes += [new for name in node.output for new in pairs.get(name, ())]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return tidy(model)


def _wanted(index: Index, left_out: set[str]) -> dict[str, set[str]]:
    """Activation → the readers (by their first output) that get it through Q/DQ."""
    wanted: dict[str, set[str]] = {}
    layers = quantizable(index, left_out)
    sums = residuals(index, layers)
    chosen = {node.output[0] for node in layers}
    for node in index.model.graph.node:
        out = node.output[0]
        if out in chosen:
            wanted.setdefault(node.input[0], set()).add(out)
        elif out in sums and node.name not in left_out:
            wanted.setdefault(sums[out], set()).add(out)
    return wanted


def _activation_pair(name: str, bounds: tuple[float, float], model: ModelProto, half: bool) -> list[NodeProto]:
    """Quantize and dequantize; their two constants are added to the model."""
    scale = _scales(np.asarray(max(abs(bounds[0]), abs(bounds[1])), dtype=np.float32), half)
    constants = [f"{name}/scale", f"{name}/zero_point"]
    model.graph.initializer.append(numpy_helper.from_array(scale, constants[0]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int8), constants[1]))
    quantized, restored = f"{name}/quantized", f"{name}/dequantized"
    return [
        helper.make_node("QuantizeLinear", [name, *constants], [quantized], name=f"{name}/QuantizeLinear"),
        helper.make_node("DequantizeLinear", [quantized, *constants], [restored], name=f"{name}/DequantizeLinear"),
    ]


def _scales(largest: NDArray[np.float32], half: bool) -> NDArray[np.float32]:
    """float32 scales for the largest magnitudes, same shape, all above 0; with ``half`` float16 holds them."""
    scales = np.asarray(np.where(largest < NOTHING, 1.0, largest) / LEVELS, dtype=np.float32)
    return np.maximum(scales, SMALLEST_HALF_SCALE).astype(np.float16).astype(np.float32) if half else scales


class _Weights:
    """Folds each weight once per axis, before its first reader; weights that several layers share stay shared."""

    def __init__(self, index: Index, layers: Sequence[NodeProto], half: bool) -> None:
        self._index = index
        self._half = half
        self._layers = {node.output[0] for node in layers}
        self._done: dict[tuple[str, int], str] = {}

    def folded(self, node: NodeProto) -> list[NodeProto]:
        """The new DequantizeLinear, if there is one, for a layer, whose weight input is set to it."""
        if node.output[0] not in self._layers:
            return []
        name = node.input[1]
        axis = weight_axis(node, len(self._index.initializers[name].dims))
        new = [] if (name, axis) in self._done else [self._fold(name, axis)]
        node.input[1] = self._done[name, axis]
        return new

    def _fold(self, name: str, axis: int) -> NodeProto:
        weight = self._index.array(name).astype(np.float32)
        others = tuple(i for i in range(weight.ndim) if i != axis)
        scale = _scales(np.abs(weight).max(axis=others), self._half)
        steps = np.rint(weight / np.expand_dims(scale, others)).clip(-LEVELS, LEVELS).astype(np.int8)
        stem = name if axis == 0 else f"{name}/axis{axis}"
        values: dict[str, NDArray[Any]] = {
            "quantized": steps,
            "scale": scale,
            "zero_point": np.zeros(scale.shape, np.int8),
        }
        for suffix, value in values.items():
            self._index.model.graph.initializer.append(numpy_helper.from_array(value, f"{stem}/{suffix}"))
        out = self._done[name, axis] = f"{stem}/dequantized"
        inputs = [f"{stem}/{suffix}" for suffix in values]
        return helper.make_node("DequantizeLinear", inputs, [out], name=f"{stem}/DequantizeLinear", axis=axis)
