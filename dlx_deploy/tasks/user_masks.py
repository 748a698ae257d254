"""Masks by a function of the user's: ``metric(confusions, weights) -> number``.

It gets of each image how many pixels of which class were answered by which, int64[m, K, K] as [true, answered]: with K
classes that is K x K numbers an image, however many pixels there are. Ignored pixels are not among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlx_deploy.tasks.user_metric import Given, UserComparison

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.tasks.user_function import Rows

    Confusions = NDArray[np.int64]

__all__ = ["MasksByFunction"]


@dataclass(frozen=True)
class MasksByFunction(UserComparison):
    """The statistic: confusions int32[n, K, K] (``runtime.tasks.user_masks``), which it is given as int64."""

    target: str = "mask"
    takes: str = "confusions int64[m, K, K], [true, answered], and weights float64[m]"

    def given(self, statistics: Sequence[Arrays]) -> Given:
        """The confusions. The extra is a usual image, whose pixels are all right, or each of another class."""
        import numpy as np

        from dlx_deploy.runtime.tasks.arrays import digests_of

        models = [_confusions(statistic) for statistic in statistics]
        extras = _extremes(models[0])
        keys = [key.tobytes() for key in np.stack([digests_of(one) for one in models], axis=1)]
        return Given(tuple((np.concatenate([one, extras]),) for one in models), keys, np.ones(1))

    def constants(self, statistic: Arrays) -> Iterator[Rows]:
        """Confusions of who answers one class for every pixel."""
        import numpy as np

        confusions = _confusions(statistic)
        shown = confusions.sum(axis=2)
        for k in np.flatnonzero(shown.sum(axis=0)):
            answered = np.zeros_like(confusions)
            answered[:, :, k] = shown
            yield (answered,)


def _confusions(statistic: Arrays) -> Confusions:
    import numpy as np

    from dlx_deploy.runtime.tasks.user_masks import CONFUSIONS

    return np.asarray(statistic[CONFUSIONS], np.int64)


def _extremes(confusions: Confusions) -> Confusions:
    """int64[2, K, K]: an image of as many pixels of each class as those images have in the mean that have a pixel that
    counts, all of them right; and the same where each class is taken for the next one that there is."""
    import numpy as np

    counted = np.count_nonzero(confusions.any(axis=(1, 2)))
    support = np.ceil(confusions.sum(axis=(0, 2)) / max(counted, 1)).astype(np.int64)
    there = np.flatnonzero(support)
    others = np.roll(there, -1) if len(there) > 1 else (there + 1) % len(support)
    right, wrong = np.diag(support), np.zeros_like(confusions, shape=(len(support), len(support)))
    wrong[there, others] = support[there]
    return np.stack([right, wrong])
