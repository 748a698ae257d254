"""Training of networks that answer for each pixel: losses over pixels that count, and mean intersection over union."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from dlx_deploy.nn.training.batches import Batch
from dlx_deploy.nn.training.distillation import Distillation, kullback_leibler, taught
from dlx_deploy.nn.training.hooks import Targets
from dlx_deploy.nn.training.losses import Blend, LossFn
from dlx_deploy.runtime.tasks.mask_counts import confusion_counts, mean_iou
from dlx_deploy.runtime.tasks.mask_files import IGNORED

__all__ = ["MeanIou", "dice_loss", "pixel_blend", "pixel_cross_entropy", "pixel_distillation", "supervised_pixels"]


def pixel_cross_entropy(logits: Tensor, masks: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """float32[N]: the cross entropy in nats, a mean over the pixels that count; 0 where none does.

    ``logits`` float32[N, K, H, W], ``masks`` integers [N, H, W], 0..K - 1 or 255.
    """
    losses = F.cross_entropy(
        logits, masks.long(), ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="none"
    )
    return _mean(losses, masks)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """float32[N]: 1 - the Dice coefficient of the softmax, a mean over the classes that an image's mask has.

    Milletari, Navab and Ahmadi 2016 ("V-Net"), without squares in the denominator. Pixels of 255 are in no sum.
    """
    counts = (masks != IGNORED).unsqueeze(1)
    probabilities = logits.softmax(dim=1) * counts
    truth = F.one_hot(masks.long().where(counts[:, 0], 0), logits.shape[1]).movedim(3, 1) * counts
    both = (probabilities * truth).sum(dim=(2, 3))
    dice = (2 * both + 1) / (probabilities.sum(dim=(2, 3)) + truth.sum(dim=(2, 3)) + 1)  # + 1: a class of few pixels
    there = truth.sum(dim=(2, 3)) > 0
    return ((1 - dice) * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)


def pixel_distillation(student: Tensor, teacher: Tensor, masks: Tensor, recipe: Distillation) -> Tensor:
    """float32[N]: ``T^2 * KL(teacher || student)`` of each pixel's classes, a mean over the pixels that count.

    Both logits float32[N, K, H, W]; several teachers' float32[N, teachers, K, H, W]. Hinton, Vinyals and Dean 2015,
    pixel by pixel as in Liu et al. 2019 ("Structured Knowledge Distillation for Semantic Segmentation", section 3.1).
    """
    return recipe.temperature**2 * _mean(kullback_leibler(*taught(student, teacher, recipe)), masks)


def supervised_pixels(label_smoothing: float, dice: bool) -> LossFn:
    """A loss for ``train``: the masks alone; with ``dice`` its loss is added."""

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        return _hard(logits, batch.targets, label_smoothing, dice)

    return loss


def pixel_blend(recipe: Distillation, dice: bool) -> Blend:
    """``alpha`` times what the teacher says, and the rest of what the masks say."""

    def blend(student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        soft = pixel_distillation(student, teacher, batch.targets, recipe)
        return recipe.soft_weight(batch.done) * soft + (1 - recipe.alpha) * _hard(student, batch.targets, 0.0, dice)

    return blend


@dataclass(frozen=True)
class MeanIou:
    """The mean over classes of intersection over union; logits float32[N, K, H, W], masks uint8[N, H, W]."""

    name: str = "miou"
    title: str = "mIoU"

    def total(self, outputs: npt.NDArray[np.float32], targets: Targets) -> npt.NDArray[np.float64]:
        """float64[K, 3]: right, surplus and missing pixels of each class."""
        counts = confusion_counts(outputs.argmax(axis=1).astype(np.uint8), targets.astype(np.uint8), outputs.shape[1])
        return np.asarray(counts.sum(axis=0), dtype=np.float64)

    def score(self, total: npt.NDArray[np.float64], count: float) -> float:
        """0..1."""
        return float(mean_iou(total[np.newaxis])[0])


def _hard(logits: Tensor, masks: Tensor, label_smoothing: float, dice: bool) -> Tensor:
    losses = pixel_cross_entropy(logits, masks, label_smoothing)
    return losses + dice_loss(logits, masks) if dice else losses


def _mean(values: Tensor, masks: Tensor) -> Tensor:
    """float32[N]: the mean of ``values`` [N, H, W] over the pixels that count."""
    counts = masks != IGNORED
    return torch.where(counts, values, 0).sum(dim=(1, 2)) / counts.sum(dim=(1, 2)).clamp(min=1)
