"""What a network reads: images or token sequences; torch is imported where tensors are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from dlx_deploy.nn.models.families import Reads

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ImageInput", "InputSpec", "TokenInput"]


class ImageInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="image"):
    """Normalised images: float32[N, channels, height, width]."""

    noun: ClassVar[str] = "images"
    reads: ClassVar[Reads] = "images"

    channels: int
    height: int
    width: int

    def example(self, count: int) -> Tensor:
        """``count`` images of zeros."""
        import torch

        return torch.zeros(count, self.channels, self.height, self.width)

    def drawn(self, count: int) -> Tensor:
        """``count`` images of noise, the same ones every time."""
        import torch

        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, self.channels, self.height, self.width, generator=generator)

    def real(self, inputs: Tensor) -> Tensor | None:
        """``None``: every part of an image is part of it."""
        return None


class TokenInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="tokens"):
    """Token sequences: int32 or int64[N, L], 0..vocabulary - 1, L at most ``max_length``, ``pad_id`` after the end."""

    noun: ClassVar[str] = "tokens"
    reads: ClassVar[Reads] = "texts"

    vocabulary: int
    max_length: int
    pad_id: int = 0

    def example(self, count: int) -> Tensor:
        """``count`` full sequences, int64[count, max_length], of tokens other than padding."""
        import torch

        row = torch.arange(self.max_length) % max(self.vocabulary - 1, 1)
        return (row + (row >= self.pad_id)).expand(count, -1).clamp(max=self.vocabulary - 1).contiguous()

    def drawn(self, count: int) -> Tensor:
        """``count`` sequences of random tokens and lengths, int64[count, max_length], the same ones every time."""
        import torch

        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(self.vocabulary, (count, self.max_length), generator=generator)
        lengths = torch.randint(1, self.max_length + 1, (count, 1), generator=generator)
        tokens[tokens == self.pad_id] = (self.pad_id + 1) % self.vocabulary
        return tokens.masked_fill(torch.arange(self.max_length) >= lengths, self.pad_id)

    def real(self, inputs: Tensor) -> Tensor | None:
        """bool[N, L]: where ``inputs``, tokens [N, L], are no padding."""
        return inputs != self.pad_id


InputSpec = ImageInput | TokenInput
