"""A paired bootstrap of metrics that read each sample with a weight, over samples or over groups of them.

Units (samples, or the groups that they come in: a patient, a video) are drawn with replacement, the same ones for both
models; a sample weighs as often as its unit was drawn. As in ``bootstrap``, one more unit is among those that are
drawn, on which one model is wrong and the other right: models that agree on every unit have bounds too. What it is made
of are the ``extras`` behind a split's samples: some that a model has right, and as many that it has wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Iterator, List, Sequence, Tuple

import numpy as np

from ..errors import InputError
from ..records import record
from ..words import GROUPS, SAMPLES
from .bootstrap import BLOCK, RESAMPLES, SEED, bounds_of
from .resampled import Bounds, Drops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    Score = Callable[[Values], Values]
    """Weights float64[r, m] of ``Units.rows`` rows → the metric float64[r], NaN where it has no value."""

__all__ = ["Units", "weighted_bounds", "weighted_drops", "weighted_value"]

MOST_UNDEFINED = 0.05
"""Of the resamples: with more, what is left says little of the split."""


@record
class Units:
    """What is drawn: ``of``, int64[n], the unit of each sample, 0..units - 1, each there, in an order of their content.

    ``shares``, float64[k]: how often a sample of the extra unit is like the k-th of the extras; they sum to 1.
    """

    of: NDArray[np.int64]
    shares: Values

    @classmethod
    def ordered(cls, keys: Sequence[bytes], groups: NDArray[np.int64], shares: Values) -> Units:
        """Units by ``groups``, int64[n], numbered by the ``keys`` of their samples: whatever order samples come in."""
        held: dict[int, List[bytes]] = {}  # Python 3.8 reads no annotation of a local name
        for key, group in zip(keys, groups.tolist()):
            held.setdefault(group, []).append(key)
        ranked = sorted(held, key=lambda group: sorted(held[group]))
        number = {group: i for i, group in enumerate(ranked)}
        return cls(np.array([number[group] for group in groups.tolist()], np.int64), shares)

    @property
    def count(self) -> int:
        """How many units there are."""
        return int(self.of.max()) + 1 if len(self.of) else 0

    @property
    def rows(self) -> int:
        """Samples, then the extras that are right, then those that are wrong."""
        return len(self.of) + 2 * len(self.shares)

    @property
    def whole(self) -> Values:
        """The weights of the split as it is, float64[1, rows]."""
        return np.concatenate([np.ones(len(self.of)), np.zeros(2 * len(self.shares))])[np.newaxis]

    def resamples(self, right: Sequence[bool], count: int) -> Iterator[List[Values]]:
        """``count`` resamples in blocks: weights float64[r, rows] for each of several models, by which of them has the
        extra unit ``right``."""
        units, extras, n = self.count + 1, len(self.shares), len(self.of)
        size = -(-n // (units - 1))
        rng = np.random.default_rng(SEED)
        for start in range(0, count, BLOCK):
            block = min(BLOCK, count - start)
            drawn = rng.multinomial(units, np.full(units, 1 / units), block)
            others = rng.multinomial(drawn[:, -1] * size, self.shares)
            weights = []
            for one in right:
                rows = np.zeros((block, self.rows))
                rows[:, :n] = drawn[:, self.of]
                place = n if one else n + extras
                rows[:, place : place + extras] = others
                weights.append(rows)
            yield weights


def weighted_value(score: Score, units: Units) -> float:
    """The metric of the split as it is.

    Raises:
        InputError: there are no samples, or it has no value.
    """
    if not len(units.of):
        raise InputError("there are no samples to compare; at least one is needed")
    value = float(score(units.whole)[0])
    if not np.isfinite(value):
        raise InputError(
            "the metric has no value on these samples: they are all of one class, or none is of a class that it asks "
            "for; give samples of each class"
        )
    return value


def weighted_bounds(score: Score, units: Units, resamples: int = RESAMPLES) -> Tuple[float, Bounds]:
    """The metric of one model, and its bounds.

    Raises:
        InputError: as ``weighted_value``, or it has no value in many resamples.
    """
    value = weighted_value(score, units)
    low, high = (_resampled([score], units, [right], resamples)[0] for right in (False, True))
    return value, bounds_of(_defined(low), _defined(high))


def weighted_drops(pair: Tuple[Score, Score], units: Units, resamples: int = RESAMPLES) -> Drops:
    """How far the metric drops from a teacher to a package, the ``pair``, on the same samples.

    Raises:
        InputError: as ``weighted_bounds``.
    """
    values = [weighted_value(score, units) for score in pair]
    low, high = (np.subtract(*_resampled(pair, units, right, resamples)) for right in ((False, True), (True, False)))
    noun = GROUPS if units.count < len(units.of) else SAMPLES
    return Drops(values[0], values[1], units.count, bounds_of(_defined(low), _defined(high)), noun)


def _resampled(scores: Sequence[Score], units: Units, right: Sequence[bool], count: int) -> List[Values]:
    blocks = [[score(weights) for score, weights in zip(scores, block)] for block in units.resamples(right, count)]
    return [np.concatenate([block[i] for block in blocks]) for i in range(len(scores))]


def _defined(values: Values) -> Values:
    kept: Values = values[np.isfinite(values)]
    if len(kept) < (1 - MOST_UNDEFINED) * len(values):
        raise InputError(
            f"the metric has no value in {len(values) - len(kept)} of {len(values)} resamples: a class that it asks "
            "for has too few samples; give more of the rarest class"
        )
    return kept
