"""INT8 layers as sums of integers: the same on every CPU, whatever the order in which it adds.

Between Q/DQ a convolution of dequantized numbers sums in floating point, and a sum in another order differs in its last
bit; where the next quantizer is on an edge that becomes a whole step, which grows from layer to layer: up to 5 % of the
largest logit on ResNet-18. A layer whose input and weights both come from DequantizeLinear needs none of that. It
is the sum of the integers themselves, exact in float32 up to 2^24, times the product of the two scales, plus the bias:
also what TensorRT's INT8 kernels compute, which have an int32 accumulator and scale it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Optional, Sequence, Set

import numpy as np

from ..package.protobuf import BYTES, Data, Field, read_message, write_message
from .onnx_graph import (
    FLOAT,
    GRAPH,
    HALF,
    INITIALIZER,
    INT32,
    NODE,
    OUTPUT,
    Node,
    as_bytes,
    end_name,
    make_node,
    make_tensor,
    tensor_array,
    tensor_name,
    tensor_shape,
    tensor_type,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LAYERS", "LONGEST", "integer_sums", "is_on_integers"]

LAYERS = ("Conv", "Gemm", "MatMul")
INTEGERS = "/exact/integers"
"""The end of the names of integers as float32."""
LONGEST = 2**31 // 128**2
"""More products than this might not fit the int32 that their sum goes through."""


def integer_sums(model: bytes) -> bytes:
    """``model`` (ONNX) with its INT8 layers on integers; the same bytes if it has none.

    A layer that is not of that form (zero points other than 0, scales per block, a bias that is computed) stays.

    Raises:
        Malformed: the bytes are no ONNX model.
    """
    fields = read_message(model)
    graphs = [_Graph(as_bytes(field)) for field in fields if field[0] == GRAPH]
    if not any(graph.layers for graph in graphs):
        return model
    changed = iter([graph.changed() for graph in graphs])
    return write_message((GRAPH, BYTES, next(changed)) if field[0] == GRAPH else field for field in fields)


def is_on_integers(inputs: Sequence[str]) -> bool:
    """Whether a node of a changed model that reads ``inputs`` is a sum of integers."""
    return bool(inputs) and all(name.endswith(INTEGERS) for name in inputs)


class _Quantized(NamedTuple):
    """What a DequantizeLinear restores: the integers' name, their scale (float32, one or one per channel), its axis."""

    integers: str
    scale: NDArray[np.float32]
    axis: int
    half: bool


class _Layer(NamedTuple):
    """A layer of two quantized inputs: ``scale`` and ``bias`` are float32 and broadcast to the output."""

    node: Node
    inputs: Sequence[str]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    half: bool


class _Graph:
    def __init__(self, data: Data) -> None:
        self._fields = read_message(data)
        tensors = [read_message(as_bytes(field)) for field in self._fields if field[0] == INITIALIZER]
        self._tensors: Dict[str, List[Field]] = {tensor_name(tensor): tensor for tensor in tensors}
        self._nodes = [Node(as_bytes(field)) for field in self._fields if field[0] == NODE]
        self._makers = {name: node for node in self._nodes for name in node.outputs}
        # What an inner graph reads of the outer one is not followed: with control flow all stays as it is.
        open_to = [] if any(node.has_graph for node in self._nodes) else self._nodes
        layers = [self._layer(node) for node in open_to if node.operator in LAYERS]
        self.layers = {layer.node.outputs[0]: layer for layer in layers if layer}

    def changed(self) -> bytes:
        """The graph as bytes; pairs and constants that nothing reads any more are left out."""
        nodes: List[bytes] = []
        constants: List[bytes] = []
        made: Set[str] = set()
        ends = {end_name(as_bytes(field)) for field in self._fields if field[0] == OUTPUT}
        others = [node for node in self._nodes if node.outputs[0] not in self.layers]
        wanted = ends.union(*(node.inputs for node in others))
        for node in self._nodes:
            layer = self.layers.get(node.outputs[0])
            if layer:
                nodes += _on_integers(layer, made)
                constants += _constants(layer)
            elif node.operator != "DequantizeLinear" or node.outputs[0] in wanted:
                nodes.append(write_message(node.fields))
        read = ends.union(*(Node(node).inputs for node in nodes))
        return write_message([*self._kept(read, nodes), *((INITIALIZER, BYTES, constant) for constant in constants)])

    def _kept(self, read: Set[str], nodes: Sequence[bytes]) -> List[Field]:
        """Everything but the old nodes and the constants that are not in ``read``, with ``nodes`` at the front."""
        done: List[Field] = [(NODE, BYTES, node) for node in nodes]
        for field in self._fields:
            if field[0] == INITIALIZER and tensor_name(read_message(as_bytes(field))) not in read:
                continue
            if field[0] != NODE:
                done.append(field)
        return done

    def _layer(self, node: Node) -> Optional[_Layer]:
        x, w = (self._quantized(name) for name in (*node.inputs[:2], "", "")[:2])
        if x is None or w is None or x.scale.size != 1 or x.half != w.half or not _plain(node):
            return None
        shape = tensor_shape(self._tensors[w.integers]) if w.integers in self._tensors else []
        rank = len(shape)
        if (node.operator == "Conv" and rank < 3) or math.prod(shape) > LONGEST * _channels(node, shape):
            return None
        if w.scale.size != 1 and (w.scale.ndim != 1 or not rank or _channel_axis(node, rank) != w.axis % rank):
            return None
        bias = self._constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros(0, np.float32)
        if bias is None:
            return None
        spread = (-1, *[1] * (rank - 2)) if node.operator == "Conv" else (-1,)
        scale = np.float32(x.scale.reshape(())) * w.scale.reshape(-1)
        return _Layer(node, (x.integers, w.integers), scale.reshape(spread), _spread(bias, spread), x.half)

    def _quantized(self, name: str) -> Optional[_Quantized]:
        node = self._makers.get(name)
        if node is None or node.operator != "DequantizeLinear" or len(node.inputs) < 2:
            return None
        scale = self._constant(node.inputs[1])
        if scale is None or node.integer("block_size", 0) or not self._no_zero_point(node):
            return None
        half = tensor_type(self._tensors[node.inputs[1]]) == HALF
        return _Quantized(node.inputs[0], scale, node.integer("axis", 1), half)

    def _no_zero_point(self, node: Node) -> bool:
        if len(node.inputs) < 3:
            return True
        zero = tensor_array(self._tensors[node.inputs[2]]) if node.inputs[2] in self._tensors else None
        return zero is not None and zero.dtype == np.int8 and not zero.any()

    def _constant(self, name: str) -> Optional[NDArray[np.float32]]:
        """float32 values of a constant of floats; ``None`` if it is not one."""
        array = tensor_array(self._tensors[name]) if name in self._tensors else None
        return None if array is None or array.dtype.kind != "f" else array.astype(np.float32)


def _on_integers(layer: _Layer, made: Set[str]) -> List[bytes]:
    """The layer's nodes; those that make floats of integers once per tensor, which ``made`` remembers."""
    out = layer.node.outputs[0]
    nodes = []
    for name in layer.inputs:
        if name not in made:
            made.add(name)
            nodes.append(make_node("Cast", [name], f"{name}{INTEGERS}", to=FLOAT))
    steps = [f"{out}/exact/{step}" for step in ("sum", "int32", "float32", "scaled", "biased")]
    nodes += [
        layer.node.renamed([f"{name}{INTEGERS}" for name in layer.inputs], [steps[0]]),
        # To int32 and back changes no integer, but keeps ONNX Runtime from moving the scale into the weights.
        make_node("Cast", [steps[0]], steps[1], to=INT32),
        make_node("Cast", [steps[1]], steps[2], to=FLOAT),
        make_node("Mul", [steps[2], f"{out}/exact/scale"], steps[3]),
    ]
    last = steps[3]
    if layer.bias.size:
        nodes.append(make_node("Add", [last, f"{out}/exact/bias"], steps[4]))
        last = steps[4]
    return [*nodes, make_node("Cast", [last], out, to=HALF if layer.half else FLOAT)]


def _constants(layer: _Layer) -> List[bytes]:
    out = layer.node.outputs[0]
    bias = [make_tensor(f"{out}/exact/bias", layer.bias)] if layer.bias.size else []
    return [make_tensor(f"{out}/exact/scale", layer.scale), *bias]


def _plain(node: Node) -> bool:
    """Whether the layer is its sum alone: a Gemm without factors."""
    return node.operator != "Gemm" or (
        node.number("alpha", 1.0) == 1.0 == node.number("beta", 1.0) and not node.integer("transA", 0)
    )


def _channel_axis(node: Node, rank: int) -> int:
    """The axis of the output channels in the layer's weights."""
    if node.operator == "Conv":
        return 0
    return rank - 1 if node.operator == "MatMul" else 0 if node.integer("transB", 0) else 1


def _channels(node: Node, shape: Sequence[int]) -> int:
    """How many output channels the weights have; 1 where they are not constant."""
    return shape[_channel_axis(node, len(shape))] if shape else 1


def _spread(bias: NDArray[np.float32], spread: Sequence[int]) -> NDArray[np.float32]:
    """The bias in the shape in which it is added."""
    return bias.reshape(spread) if bias.ndim == 1 else bias
