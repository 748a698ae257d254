"""evaluate: one candidate on the test split, sample by sample; a step for each, shared by targets that judge alike.

Nothing of a target is read but how it judges. So two boards whose teachers are the same file evaluate it once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec

from dlx_deploy.config import Config
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Stage, Step
from dlx_deploy.stages.support.statistics import Judged, statistics_of
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_of
from dlx_deploy.tasks.verification import REFERENCE

__all__ = ["STAGE", "EvaluateParams", "evaluated"]

STATISTIC, ANSWERS = "statistic.npz", "teacher.npz"


class EvaluateParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``answers``: whether the answers themselves are kept as well, as the teacher's are, for packages."""

    answers: bool


def evaluated(name: str) -> str:
    """What the statistic of the candidate ``name`` is called among what stages offer, and as an input of ``verify``."""
    return f"evaluated-{name}"


def run(job: Job[EvaluateParams]) -> Metrics:
    """Write ``statistic.npz``, the task's statistic with a row for each sample, and ``teacher.npz`` if it is asked for.

    Raises:
        StageFailed: the model gives answers that nothing can be said of, as numbers that are none.
    """
    import numpy as np

    from dlx_deploy.graph.model import input_dims, load
    from dlx_deploy.nn.data.dataset import open_data

    data = open_data(job.inputs["data"])
    task = task_of(data)
    comparison, device = task.answers.comparison, task.device(data, (), input_dims(load(job.inputs["model"])))
    test = Judged("test", data.samples("test"), {comparison.target: data.targets("test")}, device)
    columns = [device.outputs.record] if job.params.answers else []
    exact = job.target.judge == "exact-qdq"
    made = statistics_of(job, job.inputs["model"], test, [device.outputs.statistic, *columns], exact)
    for name, arrays in zip((STATISTIC, ANSWERS), made, strict=False):
        np.savez(job.out / name, **arrays)  # type: ignore[arg-type]  # its stub takes them for allow_pickle
    return {comparison.name: comparison.score(made[0]), "test_samples": float(len(test.samples))}


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """A step for each candidate."""
    return [_bound(name, model, config, profile, upstream) for name, model in upstream.candidates.items()]


def _bound(name: str, model: Output, config: Config, profile: Profile, upstream: Offers) -> Bound:
    reference = name == REFERENCE
    # A CPU's own INT8 kernels are part of what is judged; exact arithmetic is the same on every machine.
    stage = dataclasses.replace(STAGE, measures_host=profile.judge == "native")
    if reference:
        stage = dataclasses.replace(stage, outputs=(*STAGE.outputs, ANSWERS))
    inputs = {"model": model, "data": upstream.output("data")}
    step = Step(f"evaluate-{name}", stage, EvaluateParams(answers=reference), inputs, config.seed)
    offered = {evaluated(name): Output(step.name, STATISTIC)}
    return Bound(step, Offers({**offered, "teacher-answers": Output(step.name, ANSWERS)} if reference else offered))


STAGE = Stage(
    name="evaluate",
    version=1,
    params=EvaluateParams,
    inputs=("model", "data"),
    outputs=(STATISTIC,),
    run=run,
    bind=bind,
    uses=("judge",),
    tools=("numpy", "onnx", "onnxruntime"),
)
