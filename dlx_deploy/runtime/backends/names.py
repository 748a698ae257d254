"""The names of all backends, for whoever chooses one: a board's profile, a package's recipe, a command line.

Standard library only: profiles are read where no numpy may be loaded.
"""

from __future__ import annotations

from typing import Literal, Tuple

__all__ = ["DEFAULT_ORDER", "ENGINES", "BackendName"]

BackendName = Literal["tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-cpu"]
"""What can run a package: an engine by TensorRT itself, or the ONNX by an execution provider of ONNX Runtime."""
ENGINES: Tuple[BackendName, ...] = ("tensorrt", "tensorrt-rtx")
"""Those that run an engine, each by the library (the *flavour*) that built it."""
DEFAULT_ORDER: Tuple[BackendName, ...] = ("onnxruntime-cpu",)
"""What is tried where a package names no order."""
