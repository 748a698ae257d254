"""Classes by a metric that is no mean over samples (``gate.metric``), as the device's half computes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dlx_deploy.config import Gate
from dlx_deploy.errors import DataError
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.statistics.resampled import Bounds, Drops
from dlx_deploy.runtime.tasks.metric_names import TITLES
from dlx_deploy.tasks.gates import CONSTANT
from dlx_deploy.tasks.resampled import ResampledComparison
from dlx_deploy.tasks.told_resamples import told
from dlx_deploy.tasks.verification import Comparison

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.runtime.statistics.weighted import Score
    from dlx_deploy.runtime.tasks.class_metrics import ClassMetric
    from dlx_deploy.runtime.tasks.slice_scores import SliceMetric
    from dlx_deploy.runtime.untyped import Array

__all__ = ["CLASS_METRICS", "ClassComparison"]

_MINUTES = 6 * 4000 * 2.5e-9 / 60
"""CPU minutes of AUROC for each sample and class: bounds of a model and of its drop, from either side, with 2.5 ns for
each resampled sample (2.54 measured with 40 classes)."""
_LONG_MINUTES = 2.0


@dataclass(frozen=True)
class ClassComparison(ResampledComparison):
    """The statistic is that of ``runtime.tasks.class_metrics.MetricClasses``: labels, and classes or logits.
    ``progress`` hears how many of the resamples are done."""

    target: str = "label"
    progress: Progress = silent

    def watched(self, progress: Progress) -> ClassComparison:
        """The same, which tells ``progress`` how far it is."""
        return replace(self, progress=progress)

    def score(self, statistic: Arrays) -> float:
        """The metric."""
        with self._valued():
            return self._metric.value(statistic)

    def bounds(self, statistic: Arrays) -> Bounds:
        """Of the metric."""
        with self._valued():
            return self._metric.bounds(statistic)[1]

    def drops(self, teacher: Arrays, model: Arrays) -> Drops:
        """Of the metric."""
        with self._valued():
            return self._metric.drops(teacher, model)

    @property
    def in_slices(self) -> SliceMetric:
        """The metric, whose errors name no data: a slice is undecided by them."""
        return self._metric

    def facts(self, targets: Arrays) -> dict[str, float]:
        """What the best constant answer reaches."""
        return {CONSTANT: self._metric.constant(targets[self.target])}

    def split_notes(self, budgets: Gate, count: int, metrics: Metrics) -> list[str]:
        """As others, and what takes long: of each class all samples are ranked once more in each resample."""
        classes = metrics.get("classes", 2.0)
        minutes = count * classes * _MINUTES if self.name == "auroc" else 0.0
        if minutes < _LONG_MINUTES:
            return super().split_notes(budgets, count, metrics)
        return [
            *super().split_notes(budgets, count, metrics),
            f"gate.metric is 'auroc': to resample {count} samples of {classes:.0f} classes takes about "
            f"{minutes:.0f} minutes of CPU for each model that is compared; 'macro_f1' and 'balanced_accuracy' take "
            "seconds, and a smaller data.limit_test less",
        ]

    @contextmanager
    def _valued(self) -> Iterator[None]:
        """The data are named where the metric has no value on them."""
        from dlx_deploy.runtime.errors import InputError

        try:
            yield
        except InputError as e:
            raise DataError(f"gate.metric is {self.name!r}: {e}; or set another metric") from e

    @property
    def _metric(self) -> ClassMetric:
        from dlx_deploy.runtime.records import replace as changed
        from dlx_deploy.runtime.statistics.bootstrap import BLOCK, RESAMPLES
        from dlx_deploy.runtime.tasks.class_metrics import METRICS

        metric = METRICS[self.name]

        def score(labels: NDArray[np.int64], answers: Array) -> Score:
            return told(metric.score(labels, answers), 2 * RESAMPLES, self.progress, self.title, BLOCK)

        return changed(metric, score=score)


CLASS_METRICS: Mapping[str, Comparison] = {name: ClassComparison(name, title) for name, title in TITLES.items()}
"""By the values of ``gate.metric``."""
