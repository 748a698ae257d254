"""Channels that become smaller in one layer and larger again in the next: the function stays, its numbers move.

Where what makes a tensor can be divided, channel by channel, and all that read it multiply by constants, a factor for
each channel can go from one to the other. It moves ranges between activations and weights, or between two layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from dlx_deploy.graph.model import Index, attribute, int_attribute, load

__all__ = ["Seam", "divided", "input_channels", "seams"]

HOMOGENEOUS = ("Relu", "LeakyRelu")
"""f(x / s) = f(x) / s for every s above 0."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Seam:
    """A tensor between ``maker``, whose constants ``makers`` make it, channel by channel, and the ``readers``.

    ``makers``: constant → the axis of the channels. ``axis``: that of the channels in the tensor.
    """

    tensor: str
    channels: int
    axis: int
    maker: NodeProto
    makers: Mapping[str, int]
    readers: tuple[NodeProto, ...]


def seams(model: ModelProto) -> list[Seam]:
    """Where factors can move, in graph order; of constants that nothing else reads."""
    index = Index(model)
    found = (_seam(index, name) for node in model.graph.node for name in node.output[:1])
    return [seam for seam in found if seam is not None]


def divided(model: ModelProto, by: Mapping[str, Floats]) -> ModelProto:
    """A copy of ``model``, which computes the same, whose tensors ``by`` (name → float32[channels]) are divided."""
    model = load(model)
    index = Index(model)
    for seam in seams(model):
        if seam.tensor not in by:
            continue
        factors = by[seam.tensor]
        for name, axis in seam.makers.items():
            _multiply(index, name, axis, np.asarray(1 / factors, np.float32))
        for reader in seam.readers:
            weight = index.array(reader.input[1])
            axis = _input_axis(reader, weight.ndim)
            groups = int_attribute(reader, "group", 1)
            _multiply(index, reader.input[1], axis, factors, groups if axis else 1)
    return model


def input_channels(index: Index, reader: NodeProto) -> Floats:
    """float32[channels]: the largest weight that each channel of what ``reader`` reads is multiplied by."""
    weight = np.abs(index.array(reader.input[1]).astype(np.float32))
    axis = _input_axis(reader, weight.ndim)
    groups = int_attribute(reader, "group", 1)
    if groups > 1 and axis:
        weight = weight.reshape(groups, -1, *weight.shape[1:])  # [groups, outputs, inputs of a group, ...]
        return np.asarray(weight.max(axis=tuple(at for at in range(weight.ndim) if at not in (0, 2)))).reshape(-1)
    return np.asarray(weight.max(axis=tuple(at for at in range(weight.ndim) if at != axis)))


def _seam(index: Index, name: str) -> Seam | None:
    readers = index.readers(name)
    outputs = {value.name for value in index.model.graph.output}
    if not readers or name in outputs or not all(_multiplies(index, node, name) for node in readers):
        return None
    maker = index.producer[name]
    if maker.op_type in HOMOGENEOUS and len(index.readers(maker.input[0])) == 1 and maker.input[0] not in outputs:
        maker = index.producer.get(maker.input[0], maker)
    makers = _makers(index, maker)
    if not makers:
        return None
    constant, axis = next(iter(makers.items()))
    channels = int(index.initializers[constant].dims[axis])
    reads_all = all(_channels_read(index, node) == channels for node in readers)
    place = 1 if maker.op_type == "Conv" else -1
    return Seam(name, channels, place, maker, makers, tuple(readers)) if reads_all else None


def _makers(index: Index, maker: NodeProto) -> dict[str, int]:
    """The constants that a node's output is proportional to together, and the axis of its channels in each."""
    if maker.op_type == "Conv":
        names = {maker.input[1]: 0, **({maker.input[2]: 0} if len(maker.input) > 2 and maker.input[2] else {})}
    elif maker.op_type == "LayerNormalization" and int(attribute(maker, "axis", -1)) == -1:  # type: ignore[call-overload]
        names = dict.fromkeys(filter(None, maker.input[1:3]), 0)
    else:
        return {}
    return names if all(_is_own(index, name) for name in names) else {}


def _multiplies(index: Index, node: NodeProto, name: str) -> bool:
    """Whether ``node`` reads ``name`` as what its own constant weights multiply."""
    if node.op_type not in ("Conv", "Gemm", "MatMul") or list(node.input).count(name) != 1 or node.input[0] != name:
        return False
    if node.op_type == "Gemm" and int_attribute(node, "transA", 0):
        return False
    own = _is_own(index, node.input[1])
    return own and (node.op_type == "Conv" or len(index.initializers[node.input[1]].dims) == 2)


def _is_own(index: Index, name: str) -> bool:
    tensor = index.initializers.get(name)
    return tensor is not None and tensor.data_type == TensorProto.FLOAT and len(index.readers(name)) == 1


def _input_axis(reader: NodeProto, rank: int) -> int:
    """The axis of the weights along which the channels of a group lie that are read."""
    if reader.op_type == "Conv":
        return 1
    if reader.op_type == "Gemm" and int_attribute(reader, "transB", 0):
        return 1
    return rank - 2


def _channels_read(index: Index, reader: NodeProto) -> int:
    dims = index.initializers[reader.input[1]].dims
    return int(dims[_input_axis(reader, len(dims))]) * int_attribute(reader, "group", 1)


def _multiply(index: Index, name: str, axis: int, factors: Floats, groups: int = 1) -> None:
    """Multiply a constant along ``axis``; with ``groups`` each has its own part of the factors along it."""
    tensor = index.initializers[name]
    values = index.array(name).astype(np.float32)
    if groups > 1:
        parts = values.reshape(groups, -1, *values.shape[1:])
        shape = [groups, 1, -1, *[1] * (values.ndim - 2)]
        product = (parts * factors.reshape(shape)).reshape(values.shape)
    else:
        product = values * factors.reshape([-1 if at == axis else 1 for at in range(values.ndim)])
    tensor.CopyFrom(numpy_helper.from_array(product.astype(np.float32), name))
