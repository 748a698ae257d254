"""How a graph does on the validation split beside the teacher, by the task's own comparison, as the gate will judge it
on the test split."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.graph.quantization.trials import JudgedBy, Trial, Trials
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.runtime.files import write_atomically
from dlx_deploy.stages.support.judging import read_statistic
from dlx_deploy.stages.support.parity import parity_rows
from dlx_deploy.stages.support.statistics import Judged, statistics_of
from dlx_deploy.tasks import task_of
from dlx_deploy.tasks.grouped import grouped_targets
from dlx_deploy.tasks.judging import METRIC, comparison_by, judged_device, watched
from dlx_deploy.tasks.verification import REFERENCE, Accuracy, Drop, Row

if TYPE_CHECKING:
    from dlx_deploy.config import Quantize
    from dlx_deploy.graph.quantization.kit.judge import Judge
    from dlx_deploy.graph.samples import Arrays

__all__ = ["Validation", "is_beyond", "judged_by"]


class Validation:
    """At most ``most`` samples of the validation split, evenly over all, and what models answer to them.

    A model's statistic is kept for a resume. ``float`` among the job's inputs, or else ``onnx``, is the network in
    FP32; ``reference`` the teacher, where that is another.
    """

    def __init__(self, job: Job[Quantize], max_drop: float, confidence: float, most: int) -> None:
        from dlx_deploy.nn.data.dataset import open_data

        self._job, self._max_drop, self._confidence = job, max_drop, confidence
        self._data = open_data(job.inputs["data"])
        samples = self._data.samples("validation")
        self._rows = list(parity_rows(len(samples), most))
        self._samples = samples[self._rows]
        self._task = task_of(self._data)
        self._metric: str = getattr(job.params, "metric", "")  # which the stage adds to the section
        comparison = comparison_by(self._task, self._metric, job.inputs.get(METRIC))
        self._comparison = watched(comparison, job.progress)
        self._exact = job.target.judge == "exact-qdq"

    def trial(self, name: str, path: Path, restored: tuple[str, ...], layers: Mapping[str, str]) -> Trial:
        """What the graph in ``path``, known as ``name``, gives; ``layers``: the precision of each of its layers."""
        statistic = self._statistic(name, path)
        score = self._comparison.score(statistic)
        # Restoring can only help where quantization costs something; the teacher is not run to see that it does not.
        drop = self._drop(statistic) if score < self._comparison.score(self._of_fp32) else None
        return Trial(
            restored=restored,
            int8_layers=list(layers.values()).count("int8"),
            int8_macs=_int8_macs(path),
            score=score,
            drop=drop.value if drop else None,
            drop_upper=drop.upper if drop else None,
            verdict="missed" if drop and is_beyond(self._max_drop, self._fp32, drop) else "met",
        )

    def trace(self, trials: Sequence[Trial], note: str, restored: tuple[str, ...] = ()) -> Trials:
        """What was tried, with what it was judged by."""
        return Trials(
            metric=self._comparison.name,
            title=self._comparison.title,
            samples=len(self._rows),
            max_drop=self._max_drop,
            confidence=self._confidence,
            judged_by=judged_by(self._max_drop, self._fp32) if self._has_looked else "",
            reference_score=self._comparison.score(self._reference) if self._has_looked else None,
            fp32_score=self._comparison.score(self._of_fp32),
            fp32_drop=self._fp32.value if self._has_looked else None,
            note=note,
            trials=tuple(trials),
            restored=restored,
        )

    def judge(self, most: int) -> Judge:
        """By how near answers are to those of the network in FP32, on some of the samples."""
        from dlx_deploy.graph.model import load
        from dlx_deploy.graph.quantization.kit.judge import Judge

        some = self._samples[list(parity_rows(len(self._samples), most))]
        return Judge(load(self._job.inputs["onnx"]), some, self._exact)

    @cached_property
    def _of_fp32(self) -> Arrays:
        given = self._job.inputs
        return self._statistic("fp32", given.get("float", given["onnx"]))

    @cached_property
    def _reference(self) -> Arrays:
        given = self._job.inputs
        return self._statistic("reference", given["reference"]) if "reference" in given else self._of_fp32

    @property
    def _has_looked(self) -> bool:
        """Whether the teacher had to be asked."""
        return "_fp32" in self.__dict__

    @cached_property
    def _fp32(self) -> Drop:
        return self._drop(self._of_fp32)

    def _drop(self, statistic: Arrays) -> Drop:
        """Against the teacher."""
        comparison, reference = self._comparison, self._reference
        size = {"size_bytes": 0, "macs": 0, "parameters": 0}
        rows = [
            Row(model=name, score=comparison.score(of), evidence=comparison.evidence(reference, of), **size)
            for name, of in ((REFERENCE, reference), ("int8", statistic))
        ]
        accuracy = Accuracy(
            metric=comparison.name,
            title=comparison.title,
            judge=self._job.target.judge,
            n=len(self._rows),
            shipped="int8",
            rows=tuple(rows),
        )
        return comparison.drop(rows[1], accuracy, self._confidence)

    def _statistic(self, name: str, path: Path) -> Arrays:
        """The task's, with a row for each sample."""
        import numpy as np

        kept = self._job.checkpoints / f"{name}.npz"
        if kept.is_file():
            return read_statistic(kept)
        from dlx_deploy.graph.model import input_dims, load

        device = judged_device(self._task, self._data, (), input_dims(load(path)), self._metric)
        targets = self._data.targets("validation")[self._rows]
        grouped = grouped_targets(self._task, self._data, "validation")
        own = {self._comparison.target: targets, **{name: of[self._rows] for name, of in grouped.items()}}
        judged = Judged("validation", self._samples, own, device)
        (statistic,) = statistics_of(self._job, path, judged, [device.outputs.statistic], self._exact)
        kept.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, **statistic)  # type: ignore[arg-type]  # its stub takes them for allow_pickle
        write_atomically(kept, buffer.getvalue())
        return statistic


def judged_by(max_drop: float, fp32: Drop) -> JudgedBy:
    """By what INT8 is held against ``max_drop`` where the network in FP32 has the drop ``fp32``."""
    if fp32.upper <= max_drop:
        return "bound"
    return "drop" if fp32.value <= max_drop else "fp32"


def is_beyond(max_drop: float, fp32: Drop, int8: Drop) -> bool:
    """Whether INT8 misses the budget: what FP32 shows at the asked confidence, INT8 must show; where the samples are
    too few for that, its drop counts; and where FP32 is beyond the budget itself, INT8 may be so much below FP32.

    A bound that no split of this size can show would have every layer restored for nothing.
    """
    seen = {"bound": int8.upper, "drop": int8.value, "fp32": int8.value - fp32.value}
    return seen[judged_by(max_drop, fp32)] > max_drop


def _int8_macs(path: Path) -> float:
    from dlx_deploy.graph.analysis.cost import layer_costs

    costs = layer_costs(path)
    whole = sum(cost.macs for cost in costs)
    return round(sum(cost.macs for cost in costs if cost.dtype == "int8") / whole, 4) if whole else 0.0
