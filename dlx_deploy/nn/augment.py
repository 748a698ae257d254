"""Batches of float images from uint8 arrays: gathered, shifted and mirrored in one step, and normalised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Normalise", "shifted"]


class Normalise:
    """``(x / 255 - mean) / std``: uint8[N, H, W, C], NHWC, 0..255 to float32[N, C, H, W] in channels-last memory."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1) * 255
        self.inverse = 1 / (torch.tensor(std, dtype=torch.float32).view(-1, 1, 1) * 255)

    def __call__(self, images: Tensor) -> Tensor:
        """The normalised ``images``, a new tensor."""
        # Permuting NHWC gives channels-last strides without a copy; the arithmetic keeps them.
        return images.permute(0, 3, 1, 2).to(torch.float32).sub_(self.mean).mul_(self.inverse)


def shifted(images: Tensor, rows: Tensor, shift_px: int, flip: bool, generator: torch.Generator) -> Tensor:
    """``images[rows]``, each moved by up to ``shift_px`` on both axes and, with ``flip``, mirrored half of the time.

    ``images: uint8[N, H, W, C]``; ``rows: int64[B]``. What moves in is the nearest edge pixel. Every image draws its
    own shift and mirroring.
    """
    if not shift_px and not flip:
        return images[rows]
    count, (height, width) = len(rows), images.shape[1:3]
    ys = _moved(height, count, shift_px, generator)
    xs = _moved(width, count, shift_px, generator)
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        xs = torch.where(mirrored[:, None], xs.flip(1), xs)
    return images[rows[:, None, None], ys[:, :, None], xs[:, None, :]]


def _moved(length: int, count: int, shift_px: int, generator: torch.Generator) -> Tensor:
    """int64[count, length]: source positions along one axis."""
    shift = torch.randint(-shift_px, shift_px + 1, (count, 1), generator=generator)
    return (torch.arange(length) + shift).clamp_(0, length - 1)
