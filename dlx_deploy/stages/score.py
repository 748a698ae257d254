"""score: one model of a search's trial on the validation split, sample by sample, judged as the test split would be.

The test split is never looked at: a choice among many trials by it would leave nothing to judge the chosen one by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import msgspec

from dlx_deploy.errors import DataError
from dlx_deploy.pipeline.stage import Job, Metrics, Source, Stage, Step
from dlx_deploy.stages.support.statistics import Judged, statistics_of
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_of
from dlx_deploy.tasks.grouped import grouped_targets
from dlx_deploy.tasks.judging import METRIC, comparison_by, judged_device

__all__ = ["STAGE", "STATISTIC", "ScoreParams", "scoring"]

STATISTIC = "statistic.npz"


class ScoreParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``metric``: by what; "": by the task's own."""

    metric: str = ""


def run(job: Job[ScoreParams]) -> Metrics:
    """Write ``statistic.npz``, the task's statistic with a row for each sample of the validation split.

    Raises:
        DataError: there is no such split.
        StageFailed: the model gives answers that nothing can be said of, as numbers that are none.
    """
    import numpy as np

    from dlx_deploy.graph.model import input_dims, load
    from dlx_deploy.nn.data.dataset import open_data

    data = open_data(job.inputs["data"])
    if not data.splits.get("validation"):
        raise DataError(
            "there are no validation samples, by which a search judges its trials; give a validation folder or column, "
            "or data.validation_fraction"
        )
    task, samples = task_of(data), data.samples("validation")
    comparison, dims = (
        comparison_by(task, job.params.metric, job.inputs.get(METRIC)),
        input_dims(load(job.inputs["model"])),
    )
    device = judged_device(task, data, (), dims, job.params.metric)
    targets = {comparison.target: data.targets("validation"), **grouped_targets(task, data, "validation")}
    judged = Judged("validation", samples, targets, device)
    exact = job.target.judge == "exact-qdq"
    (statistic,) = statistics_of(job, job.inputs["model"], judged, [device.outputs.statistic], exact)
    np.savez(job.out / STATISTIC, **statistic)  # type: ignore[arg-type]  # its stub takes them for allow_pickle
    return {f"validation_{comparison.name}": comparison.score(statistic), "validation_samples": float(len(samples))}


def scoring(name: str, inputs: Mapping[str, Source], profile: Profile, seed: int, metric: str) -> Step:
    """The step that scores the ``model`` among the ``inputs`` on the ``data``."""
    # A CPU's own INT8 kernels are part of what is judged; exact arithmetic is the same on every machine.
    stage = dataclasses.replace(STAGE, measures_host=profile.judge == "native")
    return Step(name, stage, ScoreParams(metric=metric), inputs, seed)


STAGE = Stage(
    name="score",
    version=1,
    params=ScoreParams,
    inputs=("model", "data", METRIC),
    outputs=(STATISTIC,),
    run=run,
    uses=("judge",),
    tools=("numpy", "onnx", "onnxruntime"),
)
