"""logits: the teacher's answers to the training split, computed once for students that learn without augmentation."""

from __future__ import annotations

from collections.abc import Sequence

from dlx_deploy.config import Config
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Stage, Step
from dlx_deploy.stages.support.networks import rebuilding
from dlx_deploy.stages.support.training import TORCH_TOOLS, NoParams, learns_from_logits, use_threads
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_of

__all__ = ["STAGE"]


def run(job: Job[NoParams]) -> Metrics:
    """Write ``logits.npy``: float32[training samples, classes], in the order of the split."""
    import numpy as np

    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.nn.training.compute import training_device
    from dlx_deploy.nn.training.inference import predict_logits
    from dlx_deploy.nn.weights.network import load_model

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    teacher, _ = load_model(job.inputs["teacher"])
    task = task_of(data)
    inputs, targets = data.split("train")
    logits = predict_logits(teacher.to(training_device()), inputs, task.inputs.feed(data))
    np.save(job.out / "logits.npy", logits, allow_pickle=False)
    metric = task.answers.metric
    return {
        "train_samples": float(len(logits)),
        f"train_{metric.name}": metric.score(metric.total(logits, targets), len(logits)),
    }


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step where a student learns from the teacher's answers to the very samples that are stored."""
    if not any(section.enabled and learns_from_logits(section, config) for section in (config.distill, config.prune)):
        return []
    teacher = upstream.networks["teacher"]
    inputs = {"data": upstream.output("data"), "teacher": teacher.model}
    step = Step("teacher-logits", rebuilding(STAGE, (teacher,)), NoParams(), inputs, config.seed)
    return [Bound(step, Offers(outputs={"logits": Output("teacher-logits", "logits.npy")}))]


STAGE = Stage(
    name="logits",
    version=1,
    params=NoParams,
    inputs=("data", "teacher"),
    outputs=("logits.npy",),
    run=run,
    bind=bind,
    tools=TORCH_TOOLS,
)
