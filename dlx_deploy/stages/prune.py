"""prune: whole channels removed, smallest first, then a short fine-tune under the teacher."""

from __future__ import annotations

import logging

from dlx_deploy.config import Prune
from dlx_deploy.pipeline.stage import Job, Metrics, Stage
from dlx_deploy.stages.support.checks import check_prune
from dlx_deploy.stages.support.rehearsal import rehearse_prune
from dlx_deploy.stages.support.training import TORCH_TOOLS, distilling, train_and_save, use_threads

__all__ = ["STAGE"]

_log = logging.getLogger(__name__)


def run(job: Job[Prune]) -> Metrics:
    """Write ``model``.

    Raises:
        StageFailed: the network's channels cannot be followed, so much cannot be removed, or training diverged.
    """
    from msgspec.structs import replace

    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.nn.models.inputs import TokenInput
    from dlx_deploy.nn.pruning.channels import prune_channels, recalibrate_batchnorm
    from dlx_deploy.nn.pruning.heads import prune_heads
    from dlx_deploy.nn.pruning.search import TOLERANCE
    from dlx_deploy.nn.training.augment import Normalise
    from dlx_deploy.nn.weights.network import channel_counts, load_model

    params, data = job.params, open_data(job.inputs["data"])
    use_threads(job, data)
    model, architecture = load_model(job.inputs["model"])
    if isinstance(architecture.input, TokenInput):
        pruned, report = prune_heads(model, architecture.input, params.reduce_macs, params.round_to)
    else:
        job.progress(0, 1, f"following channels (prune.trace_seconds = {params.trace_seconds:g})")
        pruned, report = prune_channels(
            model,
            (2, data.channels, data.height, data.width),
            params.reduce_macs,
            round_to=params.round_to,
            keep_trunk=params.keep_trunk,
            trace_seconds=params.trace_seconds,
        )
        images, _ = data.split("train")
        recalibrate_batchnorm(pruned, images[:_RECALIBRATION_IMAGES], Normalise(data.mean, data.std))
    reached = report.told(params.reduce_macs)
    job.progress(0, 1, reached)
    if abs(report.reduction - params.reduce_macs) > TOLERANCE:
        _log.warning("%s", reached)
    changed = {**architecture.pruned, **report.channels}
    counts = channel_counts(pruned)
    architecture = replace(architecture, pruned={name: counts[name] for name in changed})
    metrics = train_and_save(job, data, pruned, architecture, distilling(job))
    macs = {"macs_removed": report.reduction, "macs_asked": params.reduce_macs, "macs": float(report.macs_after)}
    return {**macs, **metrics}


_RECALIBRATION_IMAGES = 1024
"""Enough for stable batch-normalisation statistics."""

STAGE = Stage(
    name="prune",
    version=3,
    params=Prune,
    inputs=("data", "model", "teacher", "logits"),
    outputs=("model",),
    run=run,
    check=check_prune,
    rehearse=rehearse_prune,
    distributed=True,
    tools=TORCH_TOOLS,
)
