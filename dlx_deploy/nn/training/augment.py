"""Batches of float images from uint8 arrays: gathered, shifted, mirrored and augmented as a batch, and normalised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlx_deploy.nn.training.views import Views

__all__ = ["Mixer", "Moves", "Normalise", "drawn_moves", "moved", "rand_augmented", "seen_in"]

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
    """Where the pixels of B moved images come from: rows int64[B, H] and columns int64[B, W] of the stored ones.

    ``views``: int64[B] on the CPU, the number of the view that each is.
    """

    ys: Tensor
    xs: Tensor
    views: Tensor

    def __getitem__(self, part: slice) -> Moves:
        return Moves(self.ys[part], self.xs[part], self.views[part])

    def to(self, device: torch.device) -> Moves:
        """The same on ``device``."""
        return Moves(self.ys.to(device, non_blocking=True), self.xs.to(device, non_blocking=True), self.views)


def drawn_moves(
    size: tuple[int, int], count: int, shift_px: int, flip: bool, generator: torch.Generator
) -> Moves | None:
    """Shifts by up to ``shift_px`` on both axes and, with ``flip``, mirrorings half of the time, for ``count`` images.

    ``size``: height and width. What moves in is the nearest edge pixel. ``None``: nothing moves.
    """
    if not shift_px and not flip:
        return None
    down = torch.randint(-shift_px, shift_px + 1, (count, 1), generator=generator)
    right = torch.randint(-shift_px, shift_px + 1, (count, 1), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5 if flip else torch.zeros(count, dtype=torch.bool)
    views = (down + shift_px) * (2 * shift_px + 1) + right + shift_px
    return _moves(size, down, right, mirrored, views[:, 0] * (1 + flip) + mirrored)


def seen_in(feed: Callable[[Tensor], Tensor], views: Views, number: int) -> Callable[[Tensor], Tensor]:
    """What a network reads for stored rows, uint8[N, H, W, C], in the view ``number``: ``feed`` of the moved images."""
    if views.count == 1:
        return feed
    shift, mirrored = divmod(number, 1 + views.flip)
    down, right = (at - views.shift_px for at in divmod(shift, 2 * views.shift_px + 1))

    def moving(rows: Tensor) -> Tensor:
        count = len(rows)
        shifts = torch.full((count, 1), down), torch.full((count, 1), right)
        same = torch.full((count,), bool(mirrored)), torch.full((count,), number)
        moves = _moves((rows.shape[1], rows.shape[2]), *shifts, *same)
        return feed(moved(rows, torch.arange(count), moves.to(rows.device)))

    return moving


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


def _moves(size: tuple[int, int], down: Tensor, right: Tensor, mirrored: Tensor, views: Tensor) -> Moves:
    """``down`` and ``right``: int64[B, 1], the shifts; ``mirrored``: bool[B]."""
    ys, xs = ((torch.arange(n) + shift).clamp_(0, n - 1) for n, shift in zip(size, (down, right), strict=True))
    return Moves(ys, torch.where(mirrored[:, None], xs.flip(1), xs), views)
