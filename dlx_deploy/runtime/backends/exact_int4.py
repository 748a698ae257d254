"""Weights of 4 bits as the numbers that they stand for: the same on every ONNX Runtime, old ones among them.

ONNX Runtime reads INT4 from 1.19 on; and unless it is told not to, it then takes a kernel of its own for the product,
which rounds activations to 8 bits. A package grows by nothing: it is opened so in memory alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Optional, Sequence, Set

import numpy as np

from ..package.protobuf import BYTES, VARINT, Data, Field, read_message, write_message
from .onnx_graph import (
    FLOAT,
    GRAPH,
    HALF,
    INITIALIZER,
    INT4,
    NODE,
    Node,
    as_bytes,
    int4_array,
    make_tensor,
    tensor_array,
    tensor_name,
    tensor_type,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["restored_weights"]

IR_VERSION, OPSET_IMPORT, DOMAIN, VERSION = 1, 8, 1, 2
"""Field numbers of a model, and of what it imports."""
BLOCK_OPSET, OLDER_OPSET, OLDER_IR = 21, 20, 9
"""What INT4 came with, and what ONNX Runtime 1.17 reads."""
CHANGED = ("GroupNormalization",)
"""Means something else in the older opset; all other operators take more types in the newer one, and no more."""


def restored_weights(model: bytes) -> bytes:
    """``model`` (ONNX) with float32 constants in place of INT4 ones and what dequantizes them; the same bytes if it
    has none.

    At opset 21 it becomes one of opset 20, where it means the same there.

    Raises:
        Malformed: the bytes are no ONNX model.
    """
    fields = read_message(model)
    graphs = [_Graph(as_bytes(field)) for field in fields if field[0] == GRAPH]
    if not any(graph.restored for graph in graphs):
        return model
    older = not any(operator in CHANGED for graph in graphs for operator in graph.operators)
    changed = iter([graph.changed() for graph in graphs])
    return write_message(
        (GRAPH, BYTES, next(changed)) if field[0] == GRAPH else _older(field) if older else field for field in fields
    )


class _Graph:
    """One graph, read; ``restored``: the outputs of DequantizeLinear nodes → their values."""

    def __init__(self, data: Data) -> None:
        self._fields = read_message(data)
        read = [read_message(as_bytes(field)) for field in self._fields if field[0] == INITIALIZER]
        self._tensors = {tensor_name(tensor): tensor for tensor in read}
        self._nodes = [Node(as_bytes(field)) for field in self._fields if field[0] == NODE]
        found = [(node, self._values(node)) for node in self._nodes if node.operator == "DequantizeLinear"]
        self.restored = {node.outputs[0]: values for node, values in found if values is not None}
        self.operators: Set[str] = {node.operator for node in self._nodes}

    def changed(self) -> bytes:
        """The graph as bytes."""
        left = [node for node in self._nodes if not (node.outputs and node.outputs[0] in self.restored)]
        read = {name for node in left for name in node.inputs}
        kept: List[Field] = [(NODE, BYTES, write_message(node.fields)) for node in left]
        for field in self._fields:
            unread = field[0] == INITIALIZER and self._is_spent(as_bytes(field), read)
            if field[0] != NODE and not unread:
                kept.append(field)
        constants = [make_tensor(name, values) for name, values in self.restored.items()]
        return write_message([*kept, *((INITIALIZER, BYTES, constant) for constant in constants)])

    def _is_spent(self, data: Data, read: Set[str]) -> bool:
        tensor = read_message(data)
        return tensor_type(tensor) == INT4 and tensor_name(tensor) not in read

    def _values(self, node: Node) -> Optional[NDArray[np.float32]]:
        """float32 in the shape of the weights; ``None`` where it is of another kind."""
        if len(node.inputs) != 2 or not all(name in self._tensors for name in node.inputs):
            return None
        stored, scales = (self._tensors[name] for name in node.inputs)
        size = node.integer("block_size", 0)
        if tensor_type(stored) != INT4 or tensor_type(scales) not in (FLOAT, HALF) or size < 1:
            return None
        steps, scale = int4_array(stored), tensor_array(scales)
        axis = node.integer("axis", 1)
        if scale is None or not _fits(steps.shape, scale.shape, axis, size):
            return None
        length = steps.shape[axis]
        spread = np.repeat(scale.astype(np.float32), min(size, length), axis=axis)  # a size may be any number
        values = steps.astype(np.float32) * spread.take(range(length), axis=axis)
        if tensor_type(scales) == HALF:  # what is computed in float16 is rounded once
            values = values.astype(np.float16).astype(np.float32)
        return np.asarray(values, np.float32)


def _fits(steps: Sequence[int], scales: Sequence[int], axis: int, size: int) -> bool:
    """Whether the scales are those of blocks of ``size`` along ``axis``."""
    if len(steps) != len(scales) or not -len(steps) <= axis < len(steps):
        return False
    wanted = list(steps)
    wanted[axis] = -(-wanted[axis] // size)
    return wanted == list(scales)


def _older(field: Field) -> Field:
    """A field of the model, for ONNX Runtime 1.17."""
    if field[0] == IR_VERSION and isinstance(field[2], int):
        return (IR_VERSION, VARINT, min(field[2], OLDER_IR))
    if field[0] != OPSET_IMPORT:
        return field
    entry = read_message(as_bytes(field))
    domain = b"".join(bytes(as_bytes(part)) for part in entry if part[0] == DOMAIN)
    if domain not in (b"", b"ai.onnx"):
        return field
    lowered: List[Field] = [
        (VERSION, VARINT, OLDER_OPSET) if part[0] == VERSION and part[2] == BLOCK_OPSET else part for part in entry
    ]
    return (OPSET_IMPORT, BYTES, write_message(lowered))
