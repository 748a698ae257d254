"""Between which operator sets graphs may be: what quantized weights need, and what the newest parser reads."""

from __future__ import annotations

__all__ = ["NEWEST", "OLDEST"]

OLDEST = 13
"""Per-channel DequantizeLinear, which INT8 weights need, came with opset 13."""
NEWEST = 25
"""The newest that any TensorRT parser documents (11.x)."""
