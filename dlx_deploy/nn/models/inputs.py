"""What a network reads: images or token sequences."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import torch
from torch import Tensor

__all__ = ["ImageInput", "InputSpec", "TokenInput"]


class ImageInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="image"):
    """Normalised images: float32[N, channels, height, width]."""

    noun: ClassVar[str] = "images"

    channels: int
    height: int
    width: int

    def example(self, count: int) -> Tensor:
        """``count`` images of zeros."""
        return torch.zeros(count, self.channels, self.height, self.width)


class TokenInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="tokens"):
    """Token sequences: int32 or int64[N, L], 0..vocabulary - 1, L at most ``max_length``, ``pad_id`` after the end."""

    noun: ClassVar[str] = "tokens"

    vocabulary: int
    max_length: int
    pad_id: int = 0

    def example(self, count: int) -> Tensor:
        """``count`` full sequences, int64[count, max_length], of tokens other than padding."""
        row = torch.arange(self.max_length) % max(self.vocabulary - 1, 1)
        return (row + (row >= self.pad_id)).expand(count, -1).clamp(max=self.vocabulary - 1).contiguous()


InputSpec = ImageInput | TokenInput
