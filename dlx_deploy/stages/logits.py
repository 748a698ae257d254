"""logits: the teacher's answers to the training split, computed once for students that would ask it the same again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx_deploy.config import Config
from dlx_deploy.nn.training.views import Views
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Stage, Step
from dlx_deploy.stages.support.networks import rebuilding
from dlx_deploy.stages.support.training import TORCH_TOOLS, logits_of, teachers_of, use_threads, views_asked
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from dlx_deploy.nn.data.dataset import Dataset

__all__ = ["STAGE"]

_MOST_BYTES = 1 << 30
"""Answers in several views may take so many; else students ask the teacher as they train."""


def run(job: Job[Views]) -> Metrics:
    """Write ``logits.npy``: float32[views * training samples, classes], for each view all samples in their order.

    It has no rows where answers in several views are too many to keep.
    """
    import numpy as np
    import torch

    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.nn.training.compute import training_device
    from dlx_deploy.nn.weights.network import load_model

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    out, views = job.out / "logits.npy", job.params
    targets = data.split("train")[1]
    if views.count > 1 and views.count * len(targets) * len(data.classes) * 4 > _MOST_BYTES:
        np.save(out, np.zeros((0, len(data.classes)), np.float32), allow_pickle=False)
        return {"train_samples": float(len(targets)), "views": 0.0}
    teacher, _ = load_model(job.inputs["teacher"])
    teacher = teacher.to(training_device()).to(memory_format=torch.channels_last)  # as a student would ask it
    as_stored = _answers(out, teacher, data, job)
    metric = task_of(data).answers.metric
    return {
        "train_samples": float(len(targets)),
        "views": float(views.count),
        f"train_{metric.name}": metric.score(metric.total(as_stored, targets), len(targets)),
    }


def _answers(out: Path, teacher: nn.Module, data: Dataset, job: Job[Views]) -> npt.NDArray[np.float32]:
    """The answers in the view that moves nothing; all are written to ``out``."""
    import numpy as np

    from dlx_deploy.nn.training.augment import seen_in
    from dlx_deploy.nn.training.inference import predict_logits

    views, feed, inputs = job.params, task_of(data).inputs.feed(data), data.split("train")[0]
    rows: Any = None
    for number in range(views.count):
        job.progress(number, views.count, f"view {number + 1} of {views.count}")
        # A block of always the same rows: nothing that a student does changes a bit of what it learns from.
        answers = predict_logits(teacher, inputs, seen_in(feed, views, number))
        if rows is None:
            shape = (views.count * len(inputs), *answers.shape[1:])
            rows = np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=shape)
        rows[number * len(inputs) : (number + 1) * len(inputs)] = answers
    rows.flush()
    middle = views.shift_px * (2 * views.shift_px + 2) * (1 + views.flip)
    return np.array(rows[middle * len(inputs) : (middle + 1) * len(inputs)])


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """A step for each set of views in which students see the training samples, if they can be counted and are few."""
    if config.teacher.is_graph:
        return []  # a teacher that is a finished graph has no network to ask
    bound: dict[str, Bound] = {}
    for name, section in (("distill", config.distill), ("prune", config.prune), ("qat", config.qat)):
        views = views_asked(section, config) if section.enabled is True else None  # "auto" may ask for nothing
        if views is None:
            continue
        for role, teacher in teachers_of(section, config, upstream).items():
            offered = logits_of(views, role)
            if offered in bound:
                continue
            first = role != "teacher" or not bound
            inputs = {"data": upstream.output("data"), "teacher": teacher.model}
            called = f"{role}-logits" if first else f"{role}-logits-{name}"
            step = Step(called, rebuilding(STAGE, (teacher,)), views, inputs, config.seed)
            bound[offered] = Bound(step, Offers(outputs={offered: Output(step.name, "logits.npy")}))
    return list(bound.values())


STAGE = Stage(
    name="logits",
    version=2,
    params=Views,
    inputs=("data", "teacher"),
    outputs=("logits.npy",),
    run=run,
    bind=bind,
    tools=TORCH_TOOLS,
)
