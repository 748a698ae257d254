"""An ONNX node's attributes, typed; torch's name of an element type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import onnx
import torch
from onnx import NodeProto

__all__ = ["Attributes", "Given", "Unsupported", "torch_type"]

Given = tuple[torch.Tensor | None, ...]
"""What a node reads; ``None`` where an optional input is left out."""


class Unsupported(Exception):
    """What a node asks for, in few words, that is not computed here."""


@dataclass(frozen=True)
class Attributes:
    """Name → value, as ONNX gives it."""

    values: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, node: NodeProto) -> Attributes:
        """Those of ``node``."""
        return cls({a.name: onnx.helper.get_attribute_value(a) for a in node.attribute})

    def integer(self, name: str, default: int) -> int:
        """An integer."""
        return int(cast(int, self.values.get(name, default)))

    def number(self, name: str, default: float) -> float:
        """A floating-point number."""
        return float(cast(float, self.values.get(name, default)))

    def integers(self, name: str, default: list[int] | None = None) -> list[int] | None:
        """A list of integers."""
        values = cast("list[int] | None", self.values.get(name, default))
        return None if values is None else [int(value) for value in values]

    def text(self, name: str, default: str) -> str:
        """A word."""
        value = self.values.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)


def torch_type(kind: int) -> torch.dtype:
    """Of an ONNX element type.

    Raises:
        Unsupported: torch has no such numbers.
    """
    try:
        return torch.from_numpy(np.zeros(0, onnx.helper.tensor_dtype_to_np_dtype(kind))).dtype
    except (KeyError, TypeError) as e:
        raise Unsupported(f"the element type {kind}") from e
