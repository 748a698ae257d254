"""Where the bias of a layer is in a graph, and how something is added to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from dlx_deploy.graph.model import Index, load
from dlx_deploy.graph.quantization.layers import weight_axis

__all__ = ["add_to_biases", "with_bias"]

Bias = NDArray[np.float32]


def with_bias(model: ModelProto, layers: Iterable[str]) -> list[str]:
    """Those of ``layers`` to which a number for each output channel can be added without another node; graph order."""
    index, wanted = Index(model), set(layers)
    return [node.name for node in model.graph.node if node.name in wanted and _place(index, node) is not None]


def add_to_biases(model: ModelProto, added: Mapping[str, Bias]) -> ModelProto:
    """``model`` with ``added`` (layer → float32[channels]) on the biases; a copy, or itself where there is nothing.

    A bias that other nodes read, too, stays theirs; a layer without one gets it.
    """
    if not added:
        return model
    model = load(model)
    index = Index(model)
    for node in list(model.graph.node):
        place = _place(index, node) if node.name in added else None
        if place is None:
            continue
        holder, position = place
        old = holder.input[position] if position < len(holder.input) else ""
        before = index.array(old).astype(np.float32) if old else np.float32(0)
        tensor = numpy_helper.from_array(np.asarray(before + added[node.name], np.float32), old)
        if old and len(index.readers(old)) == 1 and list(holder.input).count(old) == 1:
            index.initializers[old].CopyFrom(tensor)
            continue
        tensor.name = _free(index, f"{node.name}/bias")
        del holder.input[position:]
        holder.input.append(tensor.name)
        model.graph.initializer.append(tensor)
    return model


def _place(index: Index, node: NodeProto) -> tuple[NodeProto, int] | None:
    """The node that adds the bias, and its input that is or can be one."""
    if node.op_type == "MatMul":
        return _sum_behind(index, node)
    if len(node.input) < 3 or not node.input[2]:
        return node, 2
    bias = index.initializers.get(node.input[2])
    return (node, 2) if bias is not None and list(bias.dims) == [_channels(index, node)] else None


def _sum_behind(index: Index, node: NodeProto) -> tuple[NodeProto, int] | None:
    """The sum with a constant of a number for each channel, which alone reads the product."""
    readers = index.readers(node.output[0])
    if len(readers) != 1 or readers[0].op_type != "Add" or len(readers[0].input) != 2:
        return None
    position = 1 - list(readers[0].input).index(node.output[0])
    bias = index.initializers.get(readers[0].input[position])
    shared = bias is not None and len(index.readers(bias.name)) > 1
    fits = bias is not None and not shared and list(bias.dims) == [_channels(index, node)]
    return (readers[0], position) if fits else None


def _channels(index: Index, node: NodeProto) -> int:
    weight = index.initializers[node.input[1]]
    return int(weight.dims[weight_axis(node, len(weight.dims))])


def _free(index: Index, name: str) -> str:
    while name in index.initializers or name in index.producer:
        name += "_"
    return name
