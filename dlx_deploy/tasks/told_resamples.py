"""How far the resamples of a metric are, where they may take minutes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dlx_deploy.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlx_deploy.runtime.statistics.weighted import Score

    Values = NDArray[np.float64]

__all__ = ["told"]

_EVERY_S = 0.5
"""Between two remarks."""


def told(score: Score, total: int, progress: Progress, title: str, step: int) -> Score:
    """``score`` of the metric ``title``, which tells ``progress`` how many of the ``total`` resamples of one model are
    done; it is given ``step`` of them at a time."""
    import numpy as np

    done, last = 0, time.monotonic()

    def each(weights: Values) -> Values:
        nonlocal done, last
        found = []
        for start in range(0, len(weights), step):
            found.append(score(weights[start : start + step]))
            done += len(found[-1])
            if time.monotonic() - last > _EVERY_S:
                last = time.monotonic()
                progress(min(done, total), total, f"resamples of {title}")
        return np.concatenate(found)

    return each
