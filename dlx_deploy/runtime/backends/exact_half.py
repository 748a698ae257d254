"""The same arithmetic on every ONNX Runtime: a graph in half precision as a float32 one that rounds where it did.

What ONNX Runtime makes of float16 depends on its version and on the CPU. Below 1.30 its ``QuantizeLinear`` of float16
gives other integers than ONNX asks for, the casts around what it has no kernel for come and go, and an ARM CPU with
float16 sums in it. Of float32 there is one reading. So every float16 tensor becomes float32, and what computes it is
followed by a cast to float16 and back: each operation is done in float32 and its result rounded once. A quantizer then
divides in float32, as TensorRT's kernels do. Likewise bfloat16, for which ONNX Runtime has casts on CPUs and no more.
"""

from __future__ import annotations

from typing import Dict, List, Mapping

from ..errors import PackageError
from ..package.protobuf import BYTES, Data, read_message, write_message
from .onnx_graph import (
    FLOAT,
    GRAPH,
    HALVES,
    INITIALIZER,
    NODE,
    VALUE_INFO,
    Node,
    as_bytes,
    float32_tensor,
    make_node,
    tensor_name,
    tensor_type,
)

__all__ = ["FOLLOWS", "OTHER_TYPE", "float32_twin"]

FOLLOWS: Dict[str, int] = {"CastLike": 1, "DequantizeLinear": 1, "OneHot": 2, "RMSNormalization": 1, "Where": 1}
"""Operator → the input whose element type its outputs have; of all others the first."""
OTHER_TYPE: Dict[str, int] = {
    **dict.fromkeys(("And", "ArgMax", "ArgMin", "DynamicQuantizeLinear", "Equal", "Greater", "GreaterOrEqual"), 0),
    **dict.fromkeys(("IsInf", "IsNaN", "Less", "LessOrEqual", "Multinomial", "NonZero", "Not", "Or", "Xor"), 0),
    **dict.fromkeys(("QuantizeLinear", "Shape", "Size"), 0),
    **dict.fromkeys(("Dropout", "LayerNormalization", "MaxPool", "TopK", "Unique"), 1),
}
"""Operator → the first of its outputs that has a type of its own, whatever the inputs are."""
CONSTANTS = ("Constant", "ConstantOfShape")
KEEPS = frozenset(
    (
        *("Abs", "Clip", "Concat", *CONSTANTS, "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather"),
        *("GlobalMaxPool", "Identity", "Max", "MaxPool", "Min", "Neg", "Pad", "ReduceMax", "ReduceMin", "Relu"),
        *("Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze", "Where"),
    )
)
"""Operators that move or choose numbers: of float16 numbers they make float16 numbers, so there is nothing to round."""


def float32_twin(model: bytes) -> bytes:
    """``model`` (ONNX) without float16 and bfloat16: float32 instead, rounded wherever it was; the same if it has none.

    Raises:
        Malformed: the bytes are no ONNX model.
        PackageError: inner graphs (control flow) lie among them.
    """
    fields = read_message(model)
    graphs = [_Graph(as_bytes(field)) for field in fields if field[0] == GRAPH]
    if not any(graph.has_half for graph in graphs):
        return model
    twins = iter([graph.twin() for graph in graphs])
    return write_message((GRAPH, BYTES, next(twins)) if field[0] == GRAPH else field for field in fields)


class _Graph:
    """One graph, read; ``half``: the tensors that are float16 or bfloat16 in it → which of the two."""

    def __init__(self, data: Data) -> None:
        self._fields = read_message(data)
        tensors = [read_message(as_bytes(field)) for field in self._fields if field[0] == INITIALIZER]
        self.half = {tensor_name(tensor): tensor_type(tensor) for tensor in tensors if tensor_type(tensor) in HALVES}
        self._nodes = [Node(as_bytes(field)) for field in self._fields if field[0] == NODE]
        for node in self._nodes:
            self.half.update(_half_outputs(node, self.half))

    @property
    def has_half(self) -> bool:
        return bool(self.half)

    def twin(self) -> bytes:
        """The graph in float32. Inferred types (``value_info``) are left out: they would say float16."""
        nodes, done = iter(self._nodes), self._fields[:0]
        for field in self._fields:
            if field[0] == NODE:
                done += [(NODE, BYTES, node) for node in _twins(next(nodes), self.half)]
            elif field[0] == INITIALIZER:
                done.append((INITIALIZER, BYTES, float32_tensor(read_message(as_bytes(field)))))
            elif field[0] != VALUE_INFO:
                done.append(field)
        return write_message(done)


def _half_outputs(node: Node, half: Mapping[str, int]) -> Dict[str, int]:
    """Which of the node's outputs are what, if the tensors in ``half`` are."""
    if node.has_graph:
        if half:
            raise PackageError(f"the model's {node.operator} holds a graph of its own, beside float16: build it again")
        return {}
    if node.operator == "Cast":
        kinds = [node.integer("to", 0)]
    elif node.operator in CONSTANTS:
        kinds = node.tensor_types()
    else:
        kinds = [half.get(name, 0) for name in node.inputs[FOLLOWS.get(node.operator, 0) :][:1]]
    kind = next((kind for kind in kinds if kind in HALVES), 0)
    return {name: kind for name in node.outputs[: OTHER_TYPE.get(node.operator)] if name and kind}


def _twins(node: Node, half: Mapping[str, int]) -> List[bytes]:
    """The node in float32, and for each output of half precision that it computes a cast to that and back."""
    rounded = [name for name in node.outputs if name in half and node.operator not in KEEPS]
    if node.operator == "Cast" and rounded:
        return _round(node.inputs[0], rounded[0], half[rounded[0]])
    if node.operator in CONSTANTS:
        node = node.with_float32_tensors()
    outputs = [_unrounded(name) if name in rounded else name for name in node.outputs]
    return [
        node.renamed(node.inputs, outputs),
        *(c for name in rounded for c in _round(_unrounded(name), name, half[name])),
    ]


def _unrounded(name: str) -> str:
    return f"{name}/exact/unrounded"


def _round(source: str, target: str, kind: int) -> List[bytes]:
    """Two nodes that make float32 ``target`` of ``source`` by way of ``kind``."""
    half = f"{target}/exact/half"
    return [make_node("Cast", [source], half, to=kind), make_node("Cast", [half], target, to=FLOAT)]
