"""Metrics of answers that are classes, which read each sample with a weight: numpy alone, many weightings at a time.

Each function gives one of weights float64[r, n] of its n samples: the metric float64[r], NaN where it has no value.
Classes that no sample with a weight is of do not count, for whichever model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.int64]
    Values = NDArray[np.float64]
    Score = Callable[[Values], Values]

__all__ = ["auroc", "balanced_accuracy", "log_odds", "macro_f1", "top1"]

EXACT = 2.0**24
"""Whole numbers up to it are float32's own."""


def top1(labels: Labels, answers: Labels) -> Score:
    """The share of samples whose answer, int64[n], is their label, int64[n]."""
    right = (labels == answers).astype(np.float64)

    def score(weights: Values) -> Values:
        return _divided(weights @ right, weights.sum(axis=1))

    return score


def macro_f1(labels: Labels, answers: Labels) -> Score:
    """The mean over classes of F1: 2 · right / (samples of the class + answers that are the class)."""
    classes, hits = _classes(labels, answers), labels == answers
    of_label, of_answer = _sums(labels, classes), _sums(answers, classes)
    of_hits = _sums(labels[hits], classes)

    def score(weights: Values) -> Values:
        support = of_label(weights)
        right = of_hits(weights[:, hits])
        return _mean(_divided(2 * right, support + of_answer(weights)), support > 0)

    return score


def balanced_accuracy(labels: Labels, answers: Labels) -> Score:
    """The mean over classes of the share of their samples that are right."""
    classes, hits = _classes(labels, answers), labels == answers
    of_label, of_hits = _sums(labels, classes), _sums(labels[hits], classes)

    def score(weights: Values) -> Values:
        support = of_label(weights)
        return _mean(_divided(of_hits(weights[:, hits]), support), support > 0)

    return score


def auroc(labels: Labels, scores: Values) -> Score:
    """The area under the ROC curve by scores float64[n, K]: of class 1 where K is 2, else the mean over classes, each
    against all others. A tie counts half."""
    classes = scores.shape[1]
    areas = [_area(labels == k, scores[:, k]) for k in ([1] if classes == 2 else range(classes)) if (labels == k).any()]

    def score(weights: Values) -> Values:
        if not areas:
            return np.full(len(weights), np.nan)
        rows = _by_sample(weights)
        each = np.stack([area(rows) for area in areas], axis=1)
        return _mean(each, np.isfinite(each))

    return score


def log_odds(logits: NDArray[np.float32]) -> Values:
    """Of each class against all others, float64[n, K]: it ranks samples as their probabilities do, and keeps apart what
    rounds to a probability of 1."""
    wide = logits.astype(np.float64)
    odds = np.empty_like(wide)
    for k in range(wide.shape[1]):
        others = np.delete(wide, k, axis=1)
        most = others.max(axis=1, keepdims=True)
        odds[:, k] = wide[:, k] - (most[:, 0] + np.log(np.exp(others - most).sum(axis=1)))
    return odds


def _by_sample(weights: Values) -> NDArray[np.floating[Any]]:
    """[r, n] → [n, r], so that samples are ordered by moving whole rows; whole numbers, whose sums float32 has exactly,
    in half the memory."""
    whole = float(weights.sum(axis=1).max(initial=0)) < EXACT and bool((weights == np.floor(weights)).all())
    return np.ascontiguousarray(weights.T, np.float32 if whole else np.float64)


def _area(positive: NDArray[np.bool_], scores: Values) -> Callable[[NDArray[np.floating[Any]]], Values]:
    """Of weights [n, r]. The positive samples alone are ranked among the others, whose weights are summed between them:
    with many classes they are few."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    of_positive, others = order[positive[order]], order[~positive[order]]
    among, apart = scores[of_positive], ranked[~positive[order]]
    below, up_to = np.searchsorted(apart, among, "left"), np.searchsorted(apart, among, "right")
    edges, place = np.unique(np.concatenate([[0], below, up_to]), return_inverse=True)
    starts = edges[edges < len(others)]
    at_below, at_up_to = place[1 : len(among) + 1], place[len(among) + 1 :]

    def area(weights: NDArray[np.floating[Any]]) -> Values:
        until = np.zeros((len(edges) + 1, weights.shape[1]))  # what weighs less than each edge, and all of it
        if len(starts):
            between = np.add.reduceat(weights[others], starts, axis=0)
            np.cumsum(between, axis=0, dtype=np.float64, out=until[1 : len(starts) + 1])
            until[len(starts) + 1 :] = until[len(starts)]
        mine = weights[of_positive].astype(np.float64)
        under = (mine * (until[at_below] + until[at_up_to])).sum(axis=0) / 2
        return _divided(under, mine.sum(axis=0) * until[-1])

    return area


def _classes(labels: Labels, answers: Labels) -> int:
    return int(max(labels.max(initial=-1), answers.max(initial=-1))) + 1


def _sums(labels: Labels, classes: int) -> Callable[[Values], Values]:
    """Weights [r, n] of the samples of ``labels`` → their sums by class [r, classes]."""
    order = np.argsort(labels, kind="stable")
    there, starts = np.unique(labels[order], return_index=True)

    def sums(weights: Values) -> Values:
        total = np.zeros((len(weights), classes))
        if len(there):
            total[:, there] = np.add.reduceat(weights[:, order], starts, axis=1)
        return total

    return sums


def _divided(above: Values, below: Values) -> Values:
    """NaN where ``below`` is 0."""
    quotient: Values = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return quotient


def _mean(values: Values, counts: NDArray[np.bool_]) -> Values:
    """Of those in each row that count."""
    return _divided(np.where(counts, values, 0.0).sum(axis=1), counts.sum(axis=1).astype(np.float64))
