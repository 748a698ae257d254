"""What names of checkpoints end in, without torch."""

from __future__ import annotations

__all__ = ["CHECKPOINTS", "TORCH"]

TORCH = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")
CHECKPOINTS = (".safetensors", *TORCH)
"""In any case."""
