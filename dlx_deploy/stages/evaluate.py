"""evaluate: one candidate on the test split, sample by sample; a step for each, shared by targets that judge alike.

Nothing of a target is read but how it judges. So two boards whose teachers are the same file evaluate it once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import msgspec

from dlx_deploy.config import Config
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Source, Stage, Step
from dlx_deploy.stages.support.parity import CHOSEN, kept_answers, parity_rows, write_answers
from dlx_deploy.stages.support.statistics import Judged, statistics_of
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_for, task_of
from dlx_deploy.tasks.grouped import grouped_targets
from dlx_deploy.tasks.judging import METRIC, asked_metric, comparison_by, judged_device, metric_file
from dlx_deploy.tasks.verification import REFERENCE

__all__ = ["STAGE", "EvaluateParams", "answered", "evaluated"]

STATISTIC, ANSWERS, PARITY = "statistic.npz", "teacher.npz", "parity.npz"


class EvaluateParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept for packages. ``answers``: the decision on each sample, as the teacher's are. ``parity_samples``:
    to so many samples the answers, of which the package takes those of what is shipped. ``metric``: "" is the task's.
    """

    answers: bool
    parity_samples: int
    metric: str = ""


def evaluated(name: str) -> str:
    """What the statistic of the candidate ``name`` is called among what stages offer, and as an input of ``verify``."""
    return f"evaluated-{name}"


def answered(name: str) -> str:
    """What the answers of the candidate ``name`` to some samples are called among what stages offer."""
    return f"answered-{name}"


def run(job: Job[EvaluateParams]) -> Metrics:
    """Write ``statistic.npz``, the task's statistic with a row for each sample, and what is asked for: ``teacher.npz``
    and ``parity.npz``.

    Raises:
        StageFailed: the model gives answers that nothing can be said of, as numbers that are none.
    """
    import numpy as np

    from dlx_deploy.graph.model import input_dims, load
    from dlx_deploy.nn.data.dataset import open_data

    data = open_data(job.inputs["data"])
    task = task_of(data)
    dims, samples = input_dims(load(job.inputs["model"])), data.samples("test")
    comparison = comparison_by(task, job.params.metric, job.inputs.get(METRIC))
    device = judged_device(task, data, (), dims, job.params.metric)
    rows = list(parity_rows(len(samples), job.params.parity_samples))
    chosen = np.zeros(len(samples), np.bool_)
    chosen[rows] = True
    targets = {comparison.target: data.targets("test"), CHOSEN: chosen, **grouped_targets(task, data, "test")}
    test = Judged("test", samples, targets, device)
    statistics = {STATISTIC: device.outputs.statistic}
    if job.params.answers:
        statistics[ANSWERS] = device.outputs.record
    if rows:
        statistics[PARITY] = partial(kept_answers, device=device)
    exact = job.target.judge == "exact-qdq"
    values = statistics_of(job, job.inputs["model"], test, list(statistics.values()), exact)
    made = dict(zip(statistics, values, strict=True))
    if rows:
        write_answers(job.out / PARITY, samples.fitted(dims)[rows], device, made.pop(PARITY))
    for name, arrays in made.items():
        np.savez(job.out / name, **arrays)  # type: ignore[arg-type]  # its stub takes them for allow_pickle
    return {comparison.name: comparison.score(made[STATISTIC]), "test_samples": float(len(samples))}


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """A step for each candidate."""
    return [_bound(name, model, config, profile, upstream) for name, model in upstream.candidates.items()]


def _bound(name: str, model: Output, config: Config, profile: Profile, upstream: Offers) -> Bound:
    reference = name == REFERENCE
    # A CPU's own INT8 kernels are part of what is judged; exact arithmetic is the same on every machine.
    stage = dataclasses.replace(STAGE, measures_host=profile.judge == "native")
    kept = {evaluated(name): STATISTIC}
    if reference:
        kept["teacher-answers"] = ANSWERS
    if config.package.parity_samples:
        kept[answered(name)] = PARITY
    stage = dataclasses.replace(stage, outputs=tuple(kept.values()))
    inputs: dict[str, Source] = {"model": model, "data": upstream.output("data"), **metric_file(config.gate)}
    metric = asked_metric(task_for(config.data), config.gate)
    params = EvaluateParams(answers=reference, parity_samples=config.package.parity_samples, metric=metric)
    step = Step(f"evaluate-{name}", stage, params, inputs, config.seed)
    return Bound(step, Offers({offer: Output(step.name, file) for offer, file in kept.items()}))


STAGE = Stage(
    name="evaluate",
    version=4,
    params=EvaluateParams,
    inputs=("model", "data", METRIC),
    outputs=(STATISTIC,),
    run=run,
    bind=bind,
    uses=("judge",),
    tools=("numpy", "onnx", "onnxruntime"),
)
