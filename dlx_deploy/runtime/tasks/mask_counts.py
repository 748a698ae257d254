"""How good masks are: pixels by class, and the mean over classes of intersection over union."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Tuple

import numpy as np

from ..statistics.bootstrap import resample_drops, resample_value
from ..statistics.clustered import by_groups
from ..statistics.flips import MOVED
from ..statistics.resampled import Bounds, Drops
from ..words import GROUPS
from .mask_files import IGNORED

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "COUNTS",
    "TITLE",
    "confusion_counts",
    "confusion_of",
    "counted_masks",
    "iou_of",
    "mean_iou",
    "mean_iou_bounds",
    "mean_iou_drops",
    "moved_masks",
]

TITLE = "mIoU"
COUNTS = "counts"  # the column of the reference table that holds them


def confusion_of(classes: NDArray[np.uint8], mask: NDArray[np.uint8], labels: int) -> NDArray[np.int64]:
    """int64[labels, labels]: how many pixels of one image are of which class and were answered by which."""
    kept = mask != IGNORED
    pairs = np.bincount(labels * mask[kept].astype(np.int64) + classes[kept], minlength=labels * labels)
    return pairs.reshape(labels, labels)


def confusion_counts(classes: NDArray[np.uint8], masks: NDArray[np.uint8], labels: int) -> NDArray[np.int64]:
    """int64[N, labels, 3]: pixels that are rightly, wrongly (surplus), and wrongly not (missing) of each class."""
    counts = np.empty((len(masks), labels, 3), np.int64)
    for i, (answer, mask) in enumerate(zip(classes, masks)):
        table = confusion_of(answer, mask, labels)
        right = table.diagonal()
        counts[i] = np.stack([right, table.sum(axis=0) - right, table.sum(axis=1) - right], axis=1)
    return counts


def mean_iou(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over classes of right / (right + surplus + missing): sums float64[r, K, 3] → float64[r], 0..1.

    Classes that no mask has do not count; an answer of theirs is missing where another would have been right.
    """
    iou = iou_of(sums)
    there = ~np.isnan(iou)
    mean: NDArray[np.float64] = np.where(there, iou, 0.0).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
    return mean


def mean_iou_drops(
    teacher: NDArray[np.int64], package: NDArray[np.int64], groups: Optional[NDArray[np.int64]] = None
) -> Drops:
    """How much mean IoU is lost, resampled over images: counts int64[n, K, 3] of the same images; over ``groups`` of
    them, int64[n], where they come in some."""
    if groups is None:
        return resample_drops((teacher, package), _worst(teacher), mean_iou)
    ours, theirs = by_groups(teacher, groups), by_groups(package, groups)
    drops = resample_drops((ours, theirs), _worst(ours), mean_iou)
    return Drops(drops.teacher, drops.package, drops.units, drops.bounds, GROUPS)


def mean_iou_bounds(counts: NDArray[np.int64], groups: Optional[NDArray[np.int64]] = None) -> Tuple[float, Bounds]:
    """Mean IoU of a model, and its bounds, resampled over images, or ``groups`` of them: counts int64[n, K, 3]."""
    units = counts if groups is None else by_groups(counts, groups)
    return resample_value(units, _worst(units), mean_iou)


def counted_masks(teacher: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool[n]: the images that have a pixel that counts, by counts int64[n, K, 3]; no other mask can move."""
    there: NDArray[np.bool_] = (teacher[..., 0] + teacher[..., 2]).sum(axis=1) > 0
    return there


def moved_masks(teacher: NDArray[np.int64], package: NDArray[np.int64]) -> Tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """bool[m] each: which of the m ``counted_masks`` have a mean IoU of their own that fell, and rose, by more than
    ``MOVED``; counts int64[n, K, 3]."""
    there = counted_masks(teacher)
    ours, theirs = (mean_iou(counts[there].astype(np.float64)) for counts in (teacher, package))
    return ours - theirs > MOVED, theirs - ours > MOVED


def iou_of(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each class: sums float64[..., K, 3] → float64[..., K], NaN where no mask has it."""
    there = sums[..., 0] + sums[..., 2] > 0
    return np.where(there, sums[..., 0] / np.maximum(sums.sum(axis=-1), 1), np.nan)


def _worst(counts: NDArray[np.int64]) -> Tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A usual image that one model has all right, and the other all wrong: as large as those with a pixel that
    counts."""
    there = int(counted_masks(counts).sum())
    support = np.ceil((counts[..., 0] + counts[..., 2]).sum(axis=0) / max(there, 1)).astype(np.int64)
    none = np.zeros_like(support)
    return np.stack([support, none, none], axis=1), np.stack([none, support, support], axis=1)
