"""Each slice by a metric that is no mean over samples: its value on the samples of that slice alone, and bounds of its
drop by the bootstrap that judges the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, Iterator, List, Mapping, Protocol, Sequence, Tuple

import numpy as np

from ..errors import InputError
from ..records import replace
from ..statistics.resampled import UNKNOWN, Bounds, Drops
from ..statistics.scored import Scored
from .arrays import Arrays, rows_of
from .grouped import drawn_of, numbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..untyped import Array

    Rows = Dict[str, Array]

__all__ = ["SliceMetric", "score_slices", "slices_of"]


class SliceMetric(Protocol):
    """A metric of any samples; ``cost``: so much of a sample a sample costs on which one model alone is right."""

    @property
    def title(self) -> str:
        """For people."""

    @property
    def cost(self) -> float:
        """Of a sample."""

    def value(self, statistic: Rows) -> float:
        """Of a model's statistic.

        Raises:
            InputError: it has none on these samples.
        """

    def drops(self, teacher: Rows, package: Rows) -> Drops:
        """From the teacher to the package, on the same samples.

        Raises:
            InputError: as ``value``, or resampling says nothing of them.
        """


def score_slices(
    metric: SliceMetric,
    pair: Tuple[Arrays, Arrays],
    columns: Mapping[str, Sequence[str]],
    judged: Callable[[str], object],
) -> Tuple[Tuple[Scored, ...], Tuple[Bounds, ...]]:
    """Each slice, ``COLUMN=VALUE``, by the statistics of a teacher and a package, the ``pair``; and bounds of the drop
    of those that are ``judged``, by their names: of others, and where there are none, bounds that say nothing.

    ``columns``: what each sample has in each.
    """
    scores: List[Scored] = []
    bounds: List[Bounds] = []
    for name, rows in slices_of(columns):
        both = rows_of(pair[0], rows), rows_of(pair[1], rows)
        score, of_drop = _scored(metric, name, both, bool(judged(name)))
        scores.append(score)
        bounds.append(of_drop)
    return tuple(scores), tuple(bounds)


def _scored(metric: SliceMetric, name: str, pair: Tuple[Rows, Rows], judged: bool) -> Tuple[Scored, Bounds]:
    drawn = drawn_of(pair[1])
    score = Scored(name, drawn.count, None, None, metric.title, metric.cost, drawn.noun)
    try:
        score = replace(score, teacher=metric.value(pair[0]), package=metric.value(pair[1]))
        return score, metric.drops(*pair).bounds if judged else UNKNOWN
    except InputError as e:
        return replace(score, why=str(e)), UNKNOWN


def slices_of(columns: Mapping[str, Sequence[str]]) -> Iterator[Tuple[str, NDArray[np.int64]]]:
    """Each slice and the numbers of its samples, int64[m], the columns one after the other."""
    for column, values in columns.items():
        number, names = numbered(values)
        for k, name in enumerate(names):
            yield f"{column}={name}", np.flatnonzero(number == k).astype(np.int64)
