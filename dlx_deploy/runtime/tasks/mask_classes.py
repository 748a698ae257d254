"""How far each class of masks drops: its intersection over union, by a paired bootstrap over images or their groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

import numpy as np

from ..statistics.bootstrap import resample_each
from ..statistics.clustered import by_groups
from ..statistics.resampled import Bounds
from ..statistics.scored import Scored
from ..words import GROUPS, SAMPLES
from .mask_counts import iou_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]

__all__ = ["IMAGES_LOST", "class_iou_bounds", "class_ious"]

IMAGES_LOST = 2.0
"""An image on which one model alone is right costs an intersection over union about so much of an image: what it lacks
in the intersection is in the union as well."""


def class_ious(
    teacher: Counts, package: Counts, labels: Sequence[str], groups: Optional[NDArray[np.int64]] = None
) -> Tuple[Scored, ...]:
    """The intersection over union of each of ``labels``: counts int64[n, K, 3] of the same images, by the ``groups`` of
    these, int64[n], where they come in some. A class that no mask has is shown by no image."""
    units = package if groups is None else by_groups(package, groups)
    shown = _support(units).astype(bool).sum(axis=0).tolist()
    ours, theirs = (_values(iou_of(of.sum(axis=0).astype(np.float64))) for of in (teacher, package))
    noun = SAMPLES if groups is None else GROUPS
    return tuple(
        Scored(label, shown[k], ours[k], theirs[k], "IoU", IMAGES_LOST, noun) for k, label in enumerate(labels)
    )


def _values(ious: NDArray[np.float64]) -> List[Optional[float]]:
    return [None if np.isnan(value) else float(value) for value in ious]


def class_iou_bounds(
    teacher: Counts, package: Counts, groups: Optional[NDArray[np.int64]] = None
) -> Tuple[Bounds, ...]:
    """Bounds of the drop of each class of ``class_ious``.

    The unit more that is drawn is as large for a class as those that show it: a class of few images has wide bounds.
    """
    ours, theirs = (of if groups is None else by_groups(of, groups) for of in (teacher, package))
    support = _support(ours)
    usual = np.ceil(support.sum(axis=0) / np.maximum(support.astype(bool).sum(axis=0), 1)).astype(np.int64)
    none = np.zeros_like(usual)
    right, wrong = np.stack([usual, none, none], axis=1), np.stack([none, usual, usual], axis=1)
    return resample_each((ours, theirs), (right, wrong), iou_of)


def _support(counts: Counts) -> Counts:
    """Pixels that are of each class: int64[n, K, 3] → int64[n, K]."""
    support: Counts = counts[..., 0] + counts[..., 2]
    return support
