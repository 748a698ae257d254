"""Each slice of images by the mean intersection over union of its own images."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..records import record
from ..statistics.resampled import Drops
from .arrays import Arrays
from .grouped import GROUP
from .mask_classes import IMAGES_LOST
from .mask_counts import COUNTS, TITLE, counted_masks, mean_iou, mean_iou_drops

__all__ = ["MEAN_IOU", "MeanIou"]


@record
class MeanIou:
    """A ``SliceMetric`` of counts int64[n, K, 3]; classes that no mask of a slice has do not count in it."""

    title: str = TITLE
    cost: float = IMAGES_LOST

    def value(self, statistic: Arrays) -> float:
        """Of a model's statistic.

        Raises:
            InputError: every pixel is ignored.
        """
        counts = statistic[COUNTS]
        if not counted_masks(counts).any():
            raise InputError("every pixel of its masks is ignored, so none says anything; give images with classes")
        return float(mean_iou(counts.sum(axis=0, keepdims=True).astype(np.float64))[0])

    def drops(self, teacher: Arrays, package: Arrays) -> Drops:
        """From the teacher to the package, over images, or groups of them."""
        return mean_iou_drops(teacher[COUNTS], package[COUNTS], package.get(GROUP))


MEAN_IOU = MeanIou()
