"""Classes by a function of the user's: ``metric(targets, answers, weights) -> number``."""

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

    Labels = NDArray[np.int64]
    Logits = NDArray[np.float32]

__all__ = ["ClassesByFunction"]


@dataclass(frozen=True)
class ClassesByFunction(UserComparison):
    """The statistic: labels int64[n] and logits float32[n, K] (``runtime.tasks.user_metric``), which it is given."""

    target: str = "label"
    takes: str = "targets int64[m], logits float32[m, K] and weights float64[m]"

    def given(self, statistics: Sequence[Arrays]) -> Given:
        """Labels and logits. The extras are of each class that samples have: sure of it, and sure of the next one."""
        import numpy as np

        labels, _ = _parts(statistics[0])
        answers = [_parts(statistic)[1] for statistic in statistics]
        there, counts = np.unique(labels, return_counts=True)
        keys = [labels[i].tobytes() + b"".join(one[i].tobytes() for one in answers) for i in range(len(labels))]
        classes = answers[0].shape[1]
        wrong = np.roll(there, -1) if len(there) > 1 else (there + 1) % classes
        doubtless = max([1.0, *(float(np.abs(one).max(initial=0.0)) for one in answers)])
        extras = _sure(np.concatenate([there, wrong]), classes, doubtless)
        every = np.concatenate([labels, there, there])
        models = tuple((every, np.concatenate([one, extras])) for one in answers)
        return Given(models, keys, counts / max(len(labels), 1))

    def constants(self, statistic: Arrays) -> Iterator[Rows]:
        """Labels, and logits that are sure of the same class everywhere."""
        import numpy as np

        labels, logits = _parts(statistic)
        for k in np.unique(labels):
            yield labels, _sure(np.full(len(labels), k), logits.shape[1], 1.0)


def _parts(statistic: Arrays) -> tuple[Labels, Logits]:
    import numpy as np

    from dlx_deploy.runtime.tasks.classes import LABEL, LOGITS

    return np.asarray(statistic[LABEL], np.int64), np.asarray(statistic[LOGITS], np.float32)


def _sure(answers: Labels, classes: int, most: float) -> Logits:
    """Logits float32[n, classes] of who has no doubt of its ``answers``: ``most`` for them and less for others."""
    import numpy as np

    logits = np.full((len(answers), classes), -most, np.float32)
    logits[np.arange(len(answers)), answers] = most
    return logits
