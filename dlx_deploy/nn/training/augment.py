"""Batches of float images from uint8 arrays: gathered, shifted, mirrored and augmented as a batch, and normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Mixer", "Moves", "Normalise", "drawn_moves", "moved", "rand_augmented"]

GROUP = 16
"""So many images of a batch share the operations that RandAugment draws."""


class Normalise:
    """``(x / 255 - mean) / std``: uint8[N, H, W, C], NHWC, 0..255 to float32[N, C, H, W] in channels-last memory."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1) * 255
        self.inverse = 1 / (torch.tensor(std, dtype=torch.float32).view(-1, 1, 1) * 255)

    def __call__(self, images: Tensor) -> Tensor:
        """The normalised ``images``, a new tensor."""
        self.mean, self.inverse = self.mean.to(images.device), self.inverse.to(images.device)
        # Permuting NHWC gives channels-last strides without a copy; the arithmetic keeps them.
        return images.permute(0, 3, 1, 2).to(torch.float32).sub_(self.mean).mul_(self.inverse)


@dataclass(frozen=True)
class Moves:
    """Where the pixels of B moved images come from: rows int64[B, H] and columns int64[B, W] of the stored ones."""

    ys: Tensor
    xs: Tensor

    def __getitem__(self, part: slice) -> Moves:
        return Moves(self.ys[part], self.xs[part])

    def to(self, device: torch.device) -> Moves:
        """The same on ``device``."""
        return Moves(self.ys.to(device, non_blocking=True), self.xs.to(device, non_blocking=True))


def drawn_moves(
    size: tuple[int, int], count: int, shift_px: int, flip: bool, generator: torch.Generator
) -> Moves | None:
    """Shifts by up to ``shift_px`` on both axes and, with ``flip``, mirrorings half of the time, for ``count`` images.

    ``size``: height and width. What moves in is the nearest edge pixel. ``None``: nothing moves.
    """
    if not shift_px and not flip:
        return None
    ys = _moved(size[0], count, shift_px, generator)
    xs = _moved(size[1], count, shift_px, generator)
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        xs = torch.where(mirrored[:, None], xs.flip(1), xs)
    return Moves(ys, xs)


def moved(stored: Tensor, rows: Tensor, moves: Moves | None) -> Tensor:
    """``stored[rows]``, a new tensor, whose pixels are where ``moves`` put them.

    ``stored``: [N, ...], with ``moves`` images [N, H, W, C] or maps [N, H, W], on their device; ``rows``: int64[B].
    """
    rows = rows.to(stored.device, non_blocking=True)
    if moves is None:
        return stored[rows]
    return stored[rows[:, None, None], moves.ys[:, :, None], moves.xs[:, None, :]]


def rand_augmented(images: Tensor, operations: int) -> Tensor:
    """RandAugment (Cubuk et al. 2020) at torchvision's magnitude of 9 of 30, on uint8[N, H, W, C].

    ``operations`` are drawn (from torch's global generator) for every ``GROUP`` images; 0 leaves all as they are.
    """
    if not operations:
        return images
    from torchvision.transforms import v2

    augment = v2.RandAugment(operations)
    groups = images.permute(0, 3, 1, 2).split(GROUP)  # type: ignore[no-untyped-call]
    return torch.cat([augment(group) for group in groups]).permute(0, 2, 3, 1)


class Mixer:
    """mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019), one of them per batch; the numbers are their alphas."""

    def __init__(self, mixup: float, cutmix: float, classes: int) -> None:
        from torchvision.transforms import v2

        kinds: list[Any] = []
        kinds += [v2.MixUp(alpha=mixup, num_classes=classes)] if mixup else []
        kinds += [v2.CutMix(alpha=cutmix, num_classes=classes)] if cutmix else []
        self._mix: Any = v2.RandomChoice(kinds) if kinds else None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """``images`` and ``labels``, mixed: labels become float32[N, classes]. Without an alpha both as they are."""
        if self._mix is None:
            return images, labels
        mixed: tuple[Tensor, Tensor] = self._mix(images, labels)
        return mixed


def _moved(length: int, count: int, shift_px: int, generator: torch.Generator) -> Tensor:
    """int64[count, length]: source positions along one axis."""
    shift = torch.randint(-shift_px, shift_px + 1, (count, 1), generator=generator)
    return (torch.arange(length) + shift).clamp_(0, length - 1)
