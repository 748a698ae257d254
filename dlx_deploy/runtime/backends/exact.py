"""The graph that ONNX Runtime runs in place of one for TensorRT: the same arithmetic on every version and CPU."""

from __future__ import annotations

from ..errors import PackageError
from ..package.protobuf import Malformed, read_message
from .exact_half import float32_twin
from .exact_int4 import restored_weights
from .exact_int8 import integer_sums
from .onnx_graph import GRAPH, INITIALIZER, as_bytes, tensor_type

__all__ = ["exact_model", "may_be_fused"]


FLOAT8 = (17, 18, 19, 20)
"""Of TensorProto.DataType."""


def may_be_fused(model: bytes) -> bool:
    """Whether ONNX Runtime's fusions compute what ``model`` (ONNX) says: 1.32 drops a Relu in front of a quantizer of
    FP8, as if there were no numbers below its zero point.

    Raises:
        Malformed: the bytes are no ONNX model.
    """
    graphs = [read_message(as_bytes(field)) for field in read_message(model) if field[0] == GRAPH]
    tensors = (as_bytes(field) for graph in graphs for field in graph if field[0] == INITIALIZER)
    return not any(tensor_type(read_message(tensor)) in FLOAT8 for tensor in tensors)


def exact_model(model: bytes) -> bytes:
    """``model`` (ONNX) with INT8 layers summed as integers, INT4 weights as float32 and float16 as float32 that rounds.

    Raises:
        PackageError: the bytes are no ONNX model, or one with control flow among float16.
    """
    try:
        return float32_twin(integer_sums(restored_weights(model)))
    except Malformed as e:
        raise PackageError(f"the model is no ONNX model ({e}); copy or build the package again") from e
