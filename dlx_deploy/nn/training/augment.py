"""Batches of float images from uint8 arrays: gathered, shifted, mirrored and augmented as a batch, and normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Mixer", "Normalise", "rand_augmented", "shifted"]

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


def shifted(
    images: Tensor,
    rows: Tensor,
    shift_px: int,
    flip: bool,
    generator: torch.Generator,
    part: slice | None = None,
    total: int = 0,
) -> Tensor:
    """``images[rows]``, each moved by up to ``shift_px`` on both axes and, with ``flip``, mirrored half of the time.

    ``images: uint8[N, H, W, C]``; ``rows: int64[B]``. What moves in is the nearest edge pixel. Every image draws its
    own shift and mirroring. Where ``rows`` are the ``part`` of a batch of ``total``, the draws are made for all of it.
    """
    device = images.device
    if not shift_px and not flip:
        return images[rows.to(device)]
    count, (height, width) = total or len(rows), images.shape[1:3]
    ys = _moved(height, count, shift_px, generator)
    xs = _moved(width, count, shift_px, generator)
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        xs = torch.where(mirrored[:, None], xs.flip(1), xs)
    if part is not None:
        ys, xs = ys[part], xs[part]
    rows, ys, xs = (t.to(device, non_blocking=True) for t in (rows, ys, xs))
    return images[rows[:, None, None], ys[:, :, None], xs[:, None, :]]


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
