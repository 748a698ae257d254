"""Numbers of 8 bits with an exponent: E4M3, as ONNX has it from opset 19 on (FLOAT8E4M3FN)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from dlx_deploy.graph.quantization.scheme import LARGEST_FP8

__all__ = ["FP8_OPSET", "fp8_array"]

FP8_OPSET = 19


def fp8_array(values: NDArray[np.floating]) -> NDArray[np.generic]:
    """E4M3 of ``values``' shape: the nearest, of two as near the even one; what is beyond its ends becomes these."""
    kind = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)
    held: NDArray[np.generic] = np.clip(values, -LARGEST_FP8, LARGEST_FP8).astype(kind)
    return held
