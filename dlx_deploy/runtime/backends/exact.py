"""The graph that ONNX Runtime runs in place of one for TensorRT: the same arithmetic on every version and CPU."""

from __future__ import annotations

from ..errors import PackageError
from ..package.protobuf import Malformed
from .exact_half import float32_twin
from .exact_int4 import restored_weights
from .exact_int8 import integer_sums

__all__ = ["exact_model"]


def exact_model(model: bytes) -> bytes:
    """``model`` (ONNX) with INT8 layers summed as integers, INT4 weights as float32 and float16 as float32 that rounds.

    Raises:
        PackageError: the bytes are no ONNX model, or one with control flow among float16.
    """
    try:
        return float32_twin(integer_sums(restored_weights(model)))
    except Malformed as e:
        raise PackageError(f"the model is no ONNX model ({e}); copy or build the package again") from e
