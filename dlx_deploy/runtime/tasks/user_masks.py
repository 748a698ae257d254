"""Masks whose build was judged by a function of the user's, which a package does not carry: it judges by nothing."""

from __future__ import annotations

import numpy as np

from ..records import record
from .arrays import Arrays
from .mask_counts import confusion_of
from .masks import MASK, Masks
from .user_metric import Unjudged

__all__ = ["CONFUSIONS", "UserMasks"]

CONFUSIONS = "confusions"


@record
class UserMasks(Unjudged, Masks):
    """As ``Masks``; a build judges their confusions."""

    def statistic(self, outputs: Arrays, targets: Arrays) -> Arrays:
        """Of each image how many pixels of which class were answered by which, int32[n, K, K] as [true, answered], with
        what ``Masks`` keep.

        Raises:
            PackageError: a logit is NaN or infinite.
        """
        classes, masks, labels = self.decode(outputs).classes, targets[MASK], len(self.labels)
        confusions = np.empty((len(masks), labels, labels), np.int32)
        for i, (answer, mask) in enumerate(zip(classes, masks)):
            confusions[i] = confusion_of(answer, mask, labels)
        return {**self.counted(classes, targets), CONFUSIONS: confusions}
