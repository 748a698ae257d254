"""Names for what has no types: arrays of any dtype, objects of libraries that declare none, values read from JSON.

Only annotations use them; nothing is imported to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping

__all__ = ["Array", "DType", "Foreign", "JsonTable"]

Foreign = Any
"""An object of TensorRT, CUDA, ONNX Runtime or Pillow: which attributes it has depends on its version."""
JsonTable = Mapping[str, Any]
"""A table as JSON holds it: by name strings, numbers, true or false, null, lists and tables."""

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]
    """An array of any dtype; where one is meant, the docstring or a ``Tensor`` says which."""
    DType = np.dtype[Any]
    """Any dtype."""
else:
    Array, DType = "numpy.ndarray", "numpy.dtype"  # names for who looks: numpy may be missing, and is slow to import
