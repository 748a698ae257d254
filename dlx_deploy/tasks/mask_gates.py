"""Mean intersection over union of a model beside its teacher's, by a paired bootstrap over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.runtime.statistics.resampled import Bounds, Drops, units_that_agree
from dlx_deploy.runtime.statistics.scored import Scored
from dlx_deploy.tasks.flips import BETTER, COUNTED, WORSE
from dlx_deploy.tasks.gates import CONSTANT
from dlx_deploy.tasks.grouped import GROUP, flip_evidence
from dlx_deploy.tasks.resampled import ResampledComparison
from dlx_deploy.tasks.verification import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.runtime.tasks.slice_scores import SliceMetric

__all__ = ["MeanIouComparison"]

_IMAGES_LOST = 2.0
"""An image on which one model alone is right costs mean IoU about so much of an image: what it lacks in the
intersection is in the union as well."""


@dataclass(frozen=True)
class MeanIouComparison(ResampledComparison):
    """The statistic: of each image and class the right, surplus and missing pixels, int64[n, K, 3], and the group of
    each image where they come in some."""

    name: str = "miou"
    title: str = "mIoU"
    target: str = "mask"
    lost: float = _IMAGES_LOST
    counted: frozenset[str] = frozenset({"max_class_drop", "max_flips"})

    def score(self, statistic: Arrays) -> float:
        """Mean IoU."""
        from dlx_deploy.runtime.tasks.mask_counts import mean_iou

        counts = _counts_of(statistic)
        return float(mean_iou(counts.sum(axis=0, keepdims=True).astype("float64"))[0])

    def bounds(self, statistic: Arrays) -> Bounds:
        """Of mean IoU."""
        from dlx_deploy.runtime.tasks.mask_counts import mean_iou_bounds

        return mean_iou_bounds(_counts_of(statistic), statistic.get(GROUP))[1]

    def drops(self, teacher: Arrays, model: Arrays) -> Drops:
        """Of mean IoU."""
        from dlx_deploy.runtime.tasks.mask_counts import mean_iou_drops

        return mean_iou_drops(_counts_of(teacher), _counts_of(model), model.get(GROUP))

    def evidence(self, teacher: Arrays, model: Arrays) -> Evidence:
        """As others, and how many images have a clearly worse or better mask."""
        from dlx_deploy.runtime.tasks.mask_counts import counted_masks, moved_masks

        worse, better = moved_masks(_counts_of(teacher), _counts_of(model))
        found = {**super().evidence(teacher, model), WORSE: int(worse.sum()), BETTER: int(better.sum())}
        found[COUNTED] = len(worse)
        there = counted_masks(_counts_of(teacher))
        return found | (flip_evidence(worse | better, model[GROUP][there]) if GROUP in model else {})

    @property
    def in_slices(self) -> SliceMetric:
        """Mean IoU."""
        from dlx_deploy.runtime.tasks.mask_slices import MEAN_IOU

        return MEAN_IOU

    def class_scores(self, teacher: Arrays, model: Arrays, labels: Sequence[str]) -> tuple[Scored, ...]:
        """The intersection over union of each class."""
        from dlx_deploy.runtime.tasks.mask_classes import class_ious

        return class_ious(_counts_of(teacher), _counts_of(model), labels, model.get(GROUP))

    def class_bounds(self, teacher: Arrays, model: Arrays, count: int) -> tuple[Bounds, ...]:
        """Of the drop of each."""
        from dlx_deploy.runtime.tasks.mask_classes import class_iou_bounds

        return class_iou_bounds(_counts_of(teacher), _counts_of(model), model.get(GROUP))

    def split_notes(self, budgets: Gate, count: int, metrics: Metrics) -> list[str]:
        """As others, and whether a class can be shown by so many images."""
        notes = super().split_notes(budgets, count, metrics)
        least = units_that_agree(budgets.max_class_drop, budgets.confidence, self.lost) or 0
        if count < least:
            notes.append(
                f"the test split has {count} images; gate.max_class_drop {budgets.max_class_drop:g} at gate.confidence "
                f"{budgets.confidence:g} takes about {least} that show the class, of each class, if every answer is "
                "the teacher's; add test samples, or raise the budget"
            )
        return notes

    def facts(self, targets: Arrays) -> dict[str, float]:
        """Mean IoU of the best constant answer: its share of the pixels, over the classes that there are."""
        import numpy as np

        from dlx_deploy.runtime.tasks.mask_files import IGNORED

        counts = np.zeros(256, np.int64)
        for mask in targets[self.target]:  # one at a time: the split may be a memory map
            counts += np.bincount(np.asarray(mask).reshape(-1), minlength=256)
        counts[IGNORED] = 0
        classes = int(np.count_nonzero(counts))
        return {CONSTANT: float(counts.max() / counts.sum() / classes) if classes else 0.0}


def _counts_of(statistic: Arrays) -> NDArray[np.int64]:
    from dlx_deploy.runtime.tasks.mask_counts import COUNTS

    counts: NDArray[np.int64] = statistic[COUNTS]
    return counts
