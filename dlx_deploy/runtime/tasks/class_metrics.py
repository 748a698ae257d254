"""Classes judged by a metric that is no mean over samples: macro-F1, balanced accuracy, area under the ROC curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import InputError
from ..records import record
from ..statistics.bootstrap import RESAMPLES
from ..statistics.flips import refuse_counted
from ..statistics.resampled import Bounds, Drops, judge_drops, judge_value
from ..statistics.weighted import Units, weighted_bounds, weighted_drops, weighted_value
from .arrays import Arrays, Tensor
from .class_scores import auroc, balanced_accuracy, log_odds, macro_f1
from .classes import ANSWER, LABEL, LOGITS, TEACHER, Classes
from .grouped import drawn_of, group_columns, groups_of
from .judging import Judging, MetricVerification
from .metric_names import TITLES
from .slice_scores import score_slices
from .task import Budgets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..statistics.groups import Judged
    from ..statistics.weighted import Score
    from .slices import SliceBudgets

__all__ = ["METRICS", "ClassMetric", "MetricClasses"]


@record
class ClassMetric:
    """``by_scores``: of all logits; else of classes alone. ``score``: of labels and of classes or log odds. ``cost``:
    as a ``SliceMetric`` has it."""

    name: str
    score: Callable[..., Score]
    by_scores: bool = False
    cost: float = 1.0

    @property
    def title(self) -> str:
        """For people."""
        return TITLES[self.name]

    def value(self, statistic: Arrays) -> float:
        """Of a model's statistic.

        Raises:
            InputError: it has no value on these samples.
        """
        score, units = self._read([statistic])
        return weighted_value(score[0], units)

    def bounds(self, statistic: Arrays) -> Tuple[float, Bounds]:
        """Of one model.

        Raises:
            InputError: as ``value``, or it has none in many resamples.
        """
        scores, units = self._read([statistic])
        return weighted_bounds(scores[0], units)

    def drops(self, teacher: Arrays, package: Arrays, resamples: int = RESAMPLES) -> Drops:
        """From the teacher to the package, on the same samples.

        Raises:
            InputError: as ``bounds``.
        """
        (first, second), units = self._read([teacher, package])
        return weighted_drops((first, second), units, resamples)

    def constant(self, labels: NDArray[np.int64]) -> float:
        """What the best answer that is always the same reaches on samples of these ``labels``."""
        shares = np.bincount(labels) / len(labels)
        classes, most = np.count_nonzero(shares), float(shares.max())
        reached = {"macro_f1": 2 * most / (1 + most) / classes, "balanced_accuracy": 1 / classes, "auroc": 0.5}
        return float(reached[self.name])

    def _read(self, statistics: Sequence[Arrays]) -> Tuple[Tuple[Score, ...], Units]:
        labels = statistics[0][LABEL]
        there, counts = np.unique(labels, return_counts=True)
        if not len(there):
            raise InputError("there are no samples to compare; at least one is needed")
        answers = [statistic[LOGITS if self.by_scores else ANSWER] for statistic in statistics]
        keys = [b"".join(part[i].tobytes() for part in (labels, *answers)) for i in range(len(labels))]
        units = Units.ordered(keys, groups_of(statistics[-1]), counts / len(labels))
        every = np.concatenate([labels, there, there])
        wrong = np.roll(there, -1) if len(there) > 1 else there + 1
        if not self.by_scores:
            given = [np.concatenate([one, there, wrong]) for one in answers]
        else:
            many = answers[0].shape[1]
            sure = _sure(np.concatenate([there, wrong % many]), many)
            given = [np.concatenate([log_odds(one), sure]) for one in answers]
        return tuple(self.score(every, one) for one in given), units


METRICS: Dict[str, ClassMetric] = {
    one.name: one
    for one in (
        ClassMetric("macro_f1", macro_f1),
        ClassMetric("balanced_accuracy", balanced_accuracy),
        ClassMetric("auroc", auroc, by_scores=True),
    )
}


@record
class MetricClasses(Classes):
    """As ``Classes``, judged by one of ``METRICS``; ``columns``: with the teacher's logits where it reads scores."""

    @classmethod
    def of(cls, labels: Tuple[str, ...], judging: Judging) -> MetricClasses:
        """Of these ``labels``.

        Raises:
            InputError: there is no such metric.
        """
        if judging.metric not in METRICS:
            known = ", ".join(map(repr, METRICS))
            raise InputError(f"metric is {judging.metric!r}; must be one of {known}, or left out: top-1")
        own = (Tensor(LABEL, "int64", ()), Tensor(TEACHER, "int64", ()))
        logits = (Tensor(LOGITS, "float32", (len(labels),)),) if METRICS[judging.metric].by_scores else ()
        return cls(labels, (*own, *logits, *group_columns(judging.grouped)), judging=judging)

    @property
    def metric(self) -> ClassMetric:
        """The one that is called so."""
        return METRICS[self.judging.metric]

    def column_fault(self, columns: Arrays) -> Optional[Tuple[str, str]]:
        """Classes that there are not, or logits that are no numbers."""
        if self.metric.by_scores and not np.isfinite(columns[LOGITS]).all():
            return LOGITS, "holds NaN or infinite values; all must be finite"
        return super().column_fault(columns)

    def record(self, outputs: Arrays, targets: Arrays) -> Arrays:
        """The right class, the teacher's first, and its logits where the metric reads scores."""
        own = super().record(outputs, targets)
        return {**own, LOGITS: outputs[LOGITS]} if self.metric.by_scores else own

    def recall(self, columns: Arrays, targets: Arrays) -> Arrays:
        """The teacher's classes, and its logits where the metric reads scores."""
        labels = np.asarray(targets[LABEL], np.int64)
        own = {**super().recall(columns, targets), LABEL: labels}
        return {**own, LOGITS: columns[LOGITS]} if self.metric.by_scores else own

    def statistic(self, outputs: Arrays, targets: Arrays) -> Arrays:
        """Labels and a model's classes, int[n], and its logits, float32[n, K], where the metric reads scores.

        Raises:
            PackageError: a logit is NaN or infinite.
        """
        logits, labels = outputs[LOGITS], np.asarray(targets[LABEL], np.int64)
        own = {**super().statistic(outputs, targets), LABEL: labels}
        return {**own, LOGITS: logits} if self.metric.by_scores else own

    def judge(self, teacher: Arrays, package: Arrays, budgets: Budgets, changed: int) -> MetricVerification:  # type: ignore[override]  # of another metric
        """A paired bootstrap of the metric, and its floor if there is one.

        Raises:
            InputError: a budget out of range, or one that counts answers; too few samples of a class.
        """
        refuse_counted(budgets.max_flips, budgets.max_class_drop, self.metric.title)
        metric, confidence = self.metric, budgets.confidence
        verdict = judge_drops(metric.drops(teacher, package), metric.title, budgets.max_drop, confidence)
        floor = None
        if budgets.min_accuracy:
            value, bounds = metric.bounds(package)
            floor = judge_value(value, bounds, drawn_of(package), metric.title, budgets.min_accuracy, confidence)
        return MetricVerification(metric.title, verdict, changed, floor)

    def by_slice(
        self, teacher: Arrays, package: Arrays, columns: Mapping[str, Sequence[str]], asked: SliceBudgets
    ) -> Tuple[Tuple[Judged, ...], Tuple[Bounds, ...]]:
        """The metric of each slice, and bounds of its drop where it has a budget."""
        return score_slices(self.metric, (teacher, package), columns, asked.of)


def _sure(answers: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Log odds float64[n, classes] of who has no doubt of its ``answers``."""
    odds = np.full((len(answers), classes), -np.inf)
    odds[np.arange(len(answers)), answers] = np.inf
    return odds
