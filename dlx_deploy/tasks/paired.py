"""Answers that are right or wrong, sample by sample: their share, and pairs of a teacher's and a model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlx_deploy.config import Gate
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.runtime.statistics.drops import drop_upper_bound
from dlx_deploy.runtime.statistics.groups import Group
from dlx_deploy.runtime.statistics.resampled import Bounds
from dlx_deploy.tasks.flips import CHANGED, judge_classes, judge_flipped
from dlx_deploy.tasks.grouped import GROUP, paired_evidence
from dlx_deploy.tasks.paired_gates import LARGEST, counts, grouped_drops_of, judge_accuracy, judge_chance, judge_floor
from dlx_deploy.tasks.paired_notes import shipped_notes, split_notes, teacher_notes
from dlx_deploy.tasks.slices import asked_slices, judge_slices
from dlx_deploy.tasks.verification import Accuracy, Drop, Evidence, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlx_deploy.graph.samples import Arrays

__all__ = ["Paired"]

RIGHT, ANSWER = "right", "answer"
"""Of the statistic, as the device's half calls them (``runtime.tasks.classes``)."""


@dataclass(frozen=True)
class Paired:
    """The statistic is ``right``, bool[n]: where a model is right, and maybe ``answer``, int32[n]: what it says. Of a
    task that keeps no answers it may be one array by any name. ``label``, int32[n], is there where classes are counted.

    Targets are labels, int64[n]. Evidence: ``b``, how many samples only the teacher has right, and ``c``, how many only
    the model; ``changed``, how many it answers otherwise. Facts: ``largest_class``, the share (0..1) of the most
    frequent label: who always answers it is right so often.
    """

    name: str
    title: str
    target: str

    def check(self, budgets: Gate) -> None:
        """Nothing: there is a bound at every confidence."""

    def score(self, statistic: Arrays) -> float:
        """The share of samples that are right."""
        return float(_right(statistic).mean())

    def evidence(self, teacher: Arrays, model: Arrays) -> Evidence:
        """``b`` and ``c``, and ``changed`` where answers are there."""
        by_teacher, right = _right(teacher), _right(model)
        found: Evidence = {"b": int((by_teacher & ~right).sum()), "c": int((right & ~by_teacher).sum())}
        if ANSWER in model:
            found[CHANGED] = int((teacher[ANSWER] != model[ANSWER]).sum())
        return found | paired_evidence(teacher, model)

    def by_class(self, teacher: Arrays, model: Arrays, labels: Sequence[str]) -> tuple[Group, ...]:
        """Of the samples of each label; nothing where the statistic does not say it."""
        from dlx_deploy.runtime.tasks.class_verdicts import by_class
        from dlx_deploy.runtime.tasks.classes import LABEL

        return by_class(teacher, model, labels) if LABEL in model else ()

    def class_bounds(self, teacher: Arrays, model: Arrays, count: int) -> tuple[Bounds, ...]:
        """Of the drop of each of ``count`` classes, where samples come in groups."""
        if GROUP not in model or ANSWER not in model:
            return ()
        from dlx_deploy.runtime.tasks.class_verdicts import bounds_by_group
        from dlx_deploy.runtime.tasks.classes import LABEL

        return bounds_by_group(teacher, model, model[LABEL], count)

    def slice_bounds(self, teacher: Arrays, model: Arrays, columns: Mapping[str, Sequence[str]]) -> tuple[Bounds, ...]:
        """Of the drop of each slice of ``by_slice``, where samples come in groups."""
        from dlx_deploy.runtime.tasks.class_verdicts import bounds_by_slice

        return bounds_by_slice({RIGHT: _right(teacher)}, {**model, RIGHT: _right(model)}, columns)

    def by_slice(self, teacher: Arrays, model: Arrays, columns: Mapping[str, Sequence[str]]) -> tuple[Group, ...]:
        """Of the samples of each value of each column, by their names."""
        from dlx_deploy.runtime.tasks.class_verdicts import by_slice

        return by_slice({RIGHT: _right(teacher)}, {RIGHT: _right(model)}, columns)

    def facts(self, targets: Arrays) -> dict[str, float]:
        """The share of the most frequent label."""
        import numpy as np

        labels = targets[self.target]
        return {LARGEST: int(np.bincount(labels).max()) / len(labels)}

    def judge(self, budgets: Gate, accuracy: Accuracy) -> list[GateResult]:
        """The drop always; a floor where a budget is set, and chance where no floor says more."""
        results = [judge_accuracy(budgets, accuracy)]
        if budgets.min_accuracy:
            results.append(judge_floor(budgets, accuracy))
        elif LARGEST in accuracy.facts and not budgets.allow_chance:
            results.append(judge_chance(budgets, accuracy))
        if budgets.max_flips:
            results.append(judge_flipped(budgets, accuracy))
        if budgets.max_class_drop:
            results.append(judge_classes(budgets, accuracy))
        if asked_slices(budgets):
            results.append(judge_slices(budgets, accuracy))
        return results

    def drop(self, row: Row, accuracy: Accuracy, confidence: float) -> Drop:
        """``(b - c) / n``, and Tango's bound, or that of whole groups."""
        if drops := grouped_drops_of(row, accuracy):
            return Drop(drops.drop, drops.bounds.at(confidence)[1])
        b, c = counts(row)
        return Drop((b - c) / accuracy.n, drop_upper_bound(b, c, accuracy.n, confidence))

    def split_notes(self, budgets: Gate, count: int, metrics: Metrics) -> list[str]:
        """Each budget that the test split is too small for, whatever is built from it."""
        return split_notes(budgets, count, max(int(metrics.get("classes", 2)), 2))

    def teacher_notes(self, budgets: Gate, metrics: Metrics) -> list[str]:
        """Whether the validation split already says that the teacher will miss the floor or is at chance level."""
        score, largest = metrics.get(f"validation_{self.name}"), metrics.get(f"validation_{LARGEST}")
        if score is None or largest is None:
            return []
        return teacher_notes(budgets, score, largest, int(metrics["validation_samples"]))

    def shipped_notes(self, budgets: Gate, accuracy: Accuracy) -> list[str]:
        """Whether the shipped model is at chance level, which a wide ``max_drop`` lets pass."""
        return shipped_notes(budgets, accuracy)


def _right(statistic: Arrays) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = statistic[RIGHT] if RIGHT in statistic else next(iter(statistic.values()))
    return right
