"""prune: whole channels removed, single weights set to zero, smallest first; then a fine-tune under the teacher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.config import Config, Prune
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Network, Offers, Output, Setup, Stage, Step
from dlx_deploy.stages.support.checks import check_training
from dlx_deploy.stages.support.networks import rebuilding
from dlx_deploy.stages.support.pruning import grounds
from dlx_deploy.stages.support.rehearsal import is_unknown, rehearse_training, smallest_network
from dlx_deploy.stages.support.training import TORCH_TOOLS, distilling, taught_by, train_and_save, use_threads
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_for, task_of

if TYPE_CHECKING:
    from torch import nn

    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.weights.network import Architecture

__all__ = ["STAGE"]

_log = logging.getLogger(__name__)


def run(job: Job[Prune]) -> Metrics:
    """Write ``model``.

    Raises:
        StageFailed: the network's channels cannot be followed, so much cannot be removed, or training diverged.
    """
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.nn.training.hooks import Hooks
    from dlx_deploy.nn.weights.network import load_model

    params, data = job.params, open_data(job.inputs["data"])
    use_threads(job, data)
    model, architecture = load_model(job.inputs["model"])
    macs: Metrics = {}
    if _removes_channels(params):
        model, architecture, macs = _without_channels(job, data, model, architecture)
    keep, sparse = _sparse(job, model)
    if macs or sparse:
        task_of(data).inputs.settle(model, data)
    hooks = Hooks(metric=task_of(data).answers.metric, after_update=keep) if keep else None
    metrics = train_and_save(job, data, model, architecture, distilling(job, data), hooks)
    return {**macs, **sparse, **metrics}


def _removes_channels(params: Prune) -> bool:
    return params.reduces or params.sparsity == "none"


def _without_channels(
    job: Job[Prune], data: Dataset, model: nn.Module, architecture: Architecture
) -> tuple[nn.Module, Architecture, Metrics]:
    """The smaller network, its architecture, and what was removed."""
    from msgspec.structs import replace

    from dlx_deploy.nn.pruning.order import order_of
    from dlx_deploy.nn.pruning.search import TOLERANCE
    from dlx_deploy.nn.weights.network import channel_counts

    params = job.params
    job.progress(0, 0, f"following the network (prune.trace_seconds = {params.trace_seconds:g})")
    order = order_of(params, grounds(job, data))
    pruned, report = task_of(data).inputs.pruned(model, architecture.input, order)
    job.progress(0, 0, report.told())
    if report.off > TOLERANCE:
        _log.warning("%s", report.told())
    changed = {**architecture.pruned, **report.channels}
    counts = channel_counts(pruned)
    heads = {**architecture.heads, **report.heads}
    split = (*architecture.split, *report.split)
    architecture = replace(architecture, pruned={name: counts[name] for name in changed}, heads=heads, split=split)
    macs = {"macs_removed": report.reduction, "macs": float(report.macs_after)}
    macs[f"{report.goal.key.removeprefix('reduce_')}_asked"] = report.goal.asked  # macs_asked, parameters_asked
    if report.goal.key == "reduce_parameters":
        macs["parameters_removed"] = 1 - report.params_after / report.params_before
    return pruned, architecture, macs


def _sparse(job: Job[Prune], model: nn.Module) -> tuple[Callable[[nn.Module, int], None] | None, Metrics]:
    """What keeps zeros after an update, once it has made ``model`` sparse, and how sparse that is."""
    from dlx_deploy.nn.pruning.sparsity import sparsity_masks

    params = job.params
    if params.sparsity == "none":
        return None, {}
    masks = sparsity_masks(model, params)
    masks.keep(model)
    job.progress(0, 0, masks.told(params.sparsity))
    return masks.keep, {"sparse_layers": float(len(masks.kept)), "sparse_zeros": masks.zeros}


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step where the section is enabled: the last network there is, taught by the first."""
    if not config.prune.enabled:
        return []
    *_, pruned = upstream.networks.values()
    taught = taught_by(config.prune, config, upstream)
    inputs = {"data": upstream.output("data"), "model": pruned.model, **taught.inputs}
    stage = rebuilding(STAGE, (pruned, *taught.networks))
    step = Step("prune", stage, config.prune, inputs, config.seed, notes=partial(notes, config, profile))
    return [Bound(step, Offers(networks={"pruned": Network(Output("prune", "model"), pruned.library)}))]


def notes(config: Config, profile: Profile, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """What zeros are good for, and what not."""
    sparsity = config.prune.sparsity
    if sparsity == "2:4" and not profile.sparsity_2_4:
        return [f"prune.sparsity is '2:4', and {profile.name} has no kernels that compute it faster"]
    if sparsity == "unstructured":
        deflate = "" if config.package.deflate else " that is compressed (package.deflate = true)"
        return [
            f"prune: {100 * metrics['sparse_zeros']:.1f} % of the weights of {metrics['sparse_layers']:.0f} layers are "
            f"zero; kernels multiply by zeros as by any number, so nothing is faster: what it saves is the size of a "
            f"package{deflate}"
        ]
    return []


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
    if params.sparsity != "none":
        from dlx_deploy.nn.pruning.sparsity import check_sparsity

        check_sparsity(model, params)
    if _removes_channels(params):
        from dlx_deploy.nn.pruning.order import Grounds, order_of

        task_for(setup.config.data).inputs.pruned(model, spec, order_of(params, Grounds()))


STAGE = Stage(
    name="prune",
    version=7,
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
