"""teacher: the network to learn from, trained here or loaded from a checkpoint."""

from __future__ import annotations

from collections import Counter

from dlx_deploy.config import Teacher
from dlx_deploy.pipeline.stage import Job, Metrics, Stage
from dlx_deploy.stages.support.checks import check_teacher
from dlx_deploy.stages.support.rehearsal import rehearse_teacher
from dlx_deploy.stages.support.training import TORCH_TOOLS, new_model, train_and_save, use_threads

__all__ = ["STAGE"]


def run(job: Job[Teacher]) -> Metrics:
    """Write ``model``.

    Raises:
        ConfigError: the network, or a checkpoint that does not fit it. StageFailed: training diverged.
        EnvironmentMissing: pretrained weights cannot be had here, or the device lacks the precision.
    """
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.nn.models.pretrained import pretrained_state
    from dlx_deploy.nn.training.losses import supervised
    from dlx_deploy.nn.training.transfer import load_with_new_head
    from dlx_deploy.nn.weights.checkpoint import load_into, read_checkpoint
    from dlx_deploy.nn.weights.class_order import class_names, keep_class_order, named_by_config, same_classes

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    model, architecture = new_model(job, data)
    if "checkpoint" in job.inputs:
        path = job.inputs["checkpoint"]
        load = load_with_new_head if job.params.new_head else load_into
        load(model, read_checkpoint(path, job.params.checkpoint_key), path)
        if not job.params.new_head:
            names = list(job.params.classes) or class_names(path)
            names = names or class_names(job.inputs.get("names")) or named_by_config(architecture.arguments)
            keep_class_order(model, architecture.input, names, data.classes, path.name)
    elif job.params.pretrained:
        origin, state = pretrained_state(job.params.model, job.params.pretrained, job.inputs.get("source"))
        names = named_by_config(architecture.arguments)
        if job.params.new_head or not same_classes(names, data.classes):
            load_with_new_head(model, state, origin)
        else:  # a finished classifier of these classes
            load_into(model, state, origin)
            keep_class_order(model, architecture.input, names, data.classes, job.params.model)
    metrics = train_and_save(job, data, model, architecture, supervised(job.params.label_smoothing))
    _, labels = data.split("validation")
    largest = max(Counter(labels.tolist()).values())
    return {**metrics, "validation_samples": float(len(labels)), "validation_largest_class": largest / len(labels)}


STAGE = Stage(
    name="teacher",
    version=3,
    params=Teacher,
    inputs=("data", "source", "checkpoint", "names"),
    outputs=("model",),
    run=run,
    check=check_teacher,
    rehearse=rehearse_teacher,
    distributed=True,
    tools=TORCH_TOOLS,
)
