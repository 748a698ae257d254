"""prune: whole channels removed, smallest first, then a short fine-tune under the teacher."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dlx_deploy.config import Config, Prune
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Network, Offers, Output, Setup, Stage, Step
from dlx_deploy.stages.support.checks import check_training
from dlx_deploy.stages.support.networks import rebuilding
from dlx_deploy.stages.support.rehearsal import is_unknown, rehearse_training, smallest_network
from dlx_deploy.stages.support.training import TORCH_TOOLS, distilling, taught_by, train_and_save, use_threads
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_for, task_of

__all__ = ["STAGE"]

_log = logging.getLogger(__name__)


def run(job: Job[Prune]) -> Metrics:
    """Write ``model``.

    Raises:
        StageFailed: the network's channels cannot be followed, so much cannot be removed, or training diverged.
    """
    from msgspec.structs import replace

    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.nn.pruning.search import TOLERANCE
    from dlx_deploy.nn.weights.network import channel_counts, load_model

    params, data = job.params, open_data(job.inputs["data"])
    use_threads(job, data)
    model, architecture = load_model(job.inputs["model"])
    inputs = task_of(data).inputs
    job.progress(0, 0, f"following the network (prune.trace_seconds = {params.trace_seconds:g})")
    pruned, report = inputs.pruned(model, architecture.input, params)
    inputs.settle(pruned, data)
    reached = report.told(params.reduce_macs)
    job.progress(0, 0, reached)
    if abs(report.reduction - params.reduce_macs) > TOLERANCE:
        _log.warning("%s", reached)
    changed = {**architecture.pruned, **report.channels}
    counts = channel_counts(pruned)
    architecture = replace(architecture, pruned={name: counts[name] for name in changed})
    metrics = train_and_save(job, data, pruned, architecture, distilling(job, data))
    macs = {"macs_removed": report.reduction, "macs_asked": params.reduce_macs, "macs": float(report.macs_after)}
    return {**macs, **metrics}


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step where the section is enabled: the last network there is, taught by the first."""
    if not config.prune.enabled:
        return []
    *_, pruned = upstream.networks.values()
    taught = taught_by(config.prune, config, upstream)
    inputs = {"data": upstream.output("data"), "model": pruned.model, **taught.inputs}
    stage = rebuilding(STAGE, (pruned, *taught.networks))
    step = Step("prune", stage, config.prune, inputs, config.seed)
    return [Bound(step, Offers(networks={"pruned": Network(Output("prune", "model"), pruned.library)}))]


def check(setup: Setup[Prune]) -> None:
    """The ``[prune]`` table: its fine-tuning."""
    check_training("prune", setup.params, setup.config.data)


def rehearse(setup: Setup[Prune]) -> None:
    """So much can be removed: which channels go depends on the weights, how many does not.

    Raises:
        StageFailed: it cannot. Else as for the network that is pruned.
    """
    params = setup.params
    rehearse_training(params)
    if is_unknown(setup.config):
        return
    model, spec = smallest_network(setup.config)
    task_for(setup.config.data).inputs.pruned(model, spec, params)


STAGE = Stage(
    name="prune",
    version=5,
    params=Prune,
    inputs=("data", "model", "teacher", "logits"),
    outputs=("model",),
    run=run,
    check=check,
    rehearse=rehearse,
    bind=bind,
    distributed=True,
    tools=TORCH_TOOLS,
)
