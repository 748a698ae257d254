"""A paired bootstrap over units (images, documents, groups), for metrics that are no mean over samples.

The statistic of a unit is a row of counts, and the metric is a function of their sum: mean intersection over union, for
instance. Units are drawn with replacement, the same ones for both models, so what both find hard counts for neither.

A plain bootstrap of two models that agree on every unit has no width, however few the units are. So one more unit is
among those that are drawn, on which all that could go wrong does: it is drawn up to three times in 95 % of the
resamples, which is the rule of three for what has not been seen in n units.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Callable, List, Sequence, Tuple

import numpy as np

from ..errors import InputError
from .resampled import LEVELS, UNKNOWN, Bounds, Drops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    Values = NDArray[np.float64]
    Metric = Callable[[Values], Values]

__all__ = ["BLOCK", "RESAMPLES", "SEED", "bounds_of", "resample_drops", "resample_each", "resample_value"]

RESAMPLES = 4000
"""Four lie above the bound at 0.999, the highest of ``LEVELS``."""
MOST_UNDEFINED = 0.05
"""Of the resamples: with more, what is left says little of the units."""
BLOCK = 200  # resamples at a time: bounds the memory, not the result
SEED = 0  # the same units give the same verdict


def resample_value(counts: Counts, worst: Tuple[Counts, Counts], metric: Metric) -> Tuple[float, Bounds]:
    """A metric of one model, and its bounds: counts int64[n, …]; the rest as in ``resample_drops``.

    Raises:
        InputError: there are no units.
    """
    _refuse_none(counts)
    right, wrong = worst
    low, high = (_resampled([(counts, extra)], metric)[0] for extra in (wrong, right))
    return _whole(counts, metric), bounds_of(low, high)


def resample_drops(pair: Tuple[Counts, Counts], worst: Tuple[Counts, Counts], metric: Metric) -> Drops:
    """The drop from a teacher to a package, the ``pair``: int64[n, …], a row of counts for each unit, the same ones.

    ``worst``: the counts of a unit that one model has all right and the other all wrong. ``metric``: sums [r, …] →
    values [r].

    Raises:
        InputError: there are no units.
    """
    low, high = _drops(pair, worst, metric)
    teacher, package = pair
    return Drops(_whole(teacher, metric), _whole(package, metric), len(teacher), bounds_of(low, high))


def resample_each(pair: Tuple[Counts, Counts], worst: Tuple[Counts, Counts], metric: Metric) -> Tuple[Bounds, ...]:
    """Bounds of the drops of K metrics of the same resamples, each as ``resample_drops`` has it. ``metric``: sums
    [r, …] → values [r, K], NaN where one has no value; of one that often has none they say nothing.

    Raises:
        InputError: there are no units.
    """
    low, high = _drops(pair, worst, metric)
    return tuple(_bounds_of_defined(low[:, k], high[:, k]) for k in range(low.shape[1]))


def _drops(pair: Tuple[Counts, Counts], worst: Tuple[Counts, Counts], metric: Metric) -> Tuple[Values, Values]:
    """The drop in each resample, with the unit more on which the teacher alone is wrong, and alone is right."""
    teacher, package = pair
    _refuse_none(teacher)
    right, wrong = worst
    drops = []
    for ours, theirs in ((wrong, right), (right, wrong)):
        of_teacher, of_package = _resampled([(teacher, ours), (package, theirs)], metric)
        drops.append(of_teacher - of_package)
    low, high = drops
    return low, high


def _bounds_of_defined(low: Values, high: Values) -> Bounds:
    kept_low, kept_high = low[np.isfinite(low)], high[np.isfinite(high)]
    if min(len(kept_low), len(kept_high)) < (1 - MOST_UNDEFINED) * len(low):
        return UNKNOWN
    return bounds_of(kept_low, kept_high)


def _refuse_none(counts: Counts) -> None:
    if not len(counts):
        raise InputError("there are no samples to compare; at least one is needed")


def _whole(counts: Counts, metric: Metric) -> float:
    return float(metric(counts.sum(axis=0, keepdims=True).astype(np.float64))[0])


def bounds_of(low: Values, high: Values) -> Bounds:
    """Of values resampled with the unit that makes them low, and with the one that makes them high."""
    return Bounds(tuple(-x for x in _order_statistics(-low)), _order_statistics(high))


def _order_statistics(values: Values) -> Tuple[float, ...]:
    """At each level a resampled value that at least as large a share of all does not exceed."""
    ordered: Sequence[float] = sorted(float(x) for x in values)
    return tuple(ordered[min(math.ceil(level * len(ordered)), len(ordered) - 1)] for level in LEVELS)


def _resampled(models: Sequence[Tuple[Counts, Counts]], metric: Metric) -> List[Values]:
    """The metric of each model in each resample, float64[RESAMPLES]: of its units' counts and one more unit's."""
    n, shape = len(models[0][0]) + 1, models[0][1].shape
    # Whatever order the units come in: a device lists files, a build has shuffled them.
    rows = [b"".join(counts[i].tobytes() for counts, _ in models) for i in range(n - 1)]
    order = sorted(range(n - 1), key=rows.__getitem__)
    flat = [
        np.concatenate([counts[order], extra[np.newaxis]]).reshape(n, -1).astype(np.float64) for counts, extra in models
    ]
    rng, blocks = np.random.default_rng(SEED), []
    for _ in range(0, RESAMPLES, BLOCK):
        weights = rng.multinomial(n, np.full(n, 1 / n), BLOCK).astype(np.float64)
        blocks.append([metric((weights @ rows).reshape(BLOCK, *shape)) for rows in flat])
    return [np.concatenate([block[i] for block in blocks]) for i in range(len(models))]
