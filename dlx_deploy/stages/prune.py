"""prune: whole channels removed, single weights set to zero, smallest first; then a fine-tune under the teacher."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dlx_deploy.config import Config, Prune
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Network, Offers, Output, Setup, Stage, Step
from dlx_deploy.stages.support.checks import check_training
from dlx_deploy.stages.support.networks import rebuilding
from dlx_deploy.stages.support.pruning import check_latency, grounds, metered, rehearsed
from dlx_deploy.stages.support.rehearsal import is_unknown, rehearse_training, smallest_network
from dlx_deploy.stages.support.training import TORCH_TOOLS, distilling, taught_by, train_and_save, use_threads
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_for, task_of

if TYPE_CHECKING:
    from torch import nn

    from dlx_deploy.nn.data.dataset import Dataset
    from dlx_deploy.nn.pruning.channels import PruneReport
    from dlx_deploy.nn.weights.network import Architecture

__all__ = ["STAGE"]

_log = logging.getLogger(__name__)

_ASKED = {
    "reduce_macs": "macs_asked",
    "reduce_parameters": "parameters_asked",
    "reduce_latency": "latency_share_asked",
    "max_latency_ms": "latency_asked_ms",
}
"""Goal → the metric that says what was asked."""

Update = Callable[["nn.Module", int], None]
"""A ``Hooks.after_update``."""


@dataclass(frozen=True)
class Pruned:
    """A network on its way, and what was removed of it so far."""

    model: nn.Module
    architecture: Architecture
    report: PruneReport | None = None


def run(job: Job[Prune]) -> Metrics:
    """Write ``model``.

    Raises:
        StageFailed: the network's channels cannot be followed, so much cannot be removed, or training diverged.
    """
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.nn.weights.network import load_model

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    pruned, removed = Pruned(*load_model(job.inputs["model"])), {}
    if _removes_channels(job.params):
        for number in range(1, job.params.rounds):
            pruned = _without_channels(job, data, pruned, number)
            _fine_tune(_round(job, number), data, pruned)
        pruned = _without_channels(job, data, pruned, job.params.rounds)
        removed = _removed(job, pruned)
    keep, sparse = _sparse(job, data, pruned.model)
    return {
        **removed,
        **sparse,
        **_fine_tune(_round(job, job.params.rounds), data, pruned, keep, bool(removed or sparse)),
    }


def _removes_channels(params: Prune) -> bool:
    return params.reduces or params.sparsity == "none"


def _fine_tune(
    job: Job[Prune], data: Dataset, pruned: Pruned, keep: Update | None = None, settle: bool = True
) -> Metrics:
    """Writes ``model``. ``settle``: something of it has changed; ``keep`` what follows an update."""
    from dlx_deploy.nn.training.hooks import Hooks

    if settle:
        task_of(data).inputs.settle(pruned.model, data)
    hooks = Hooks(metric=task_of(data).answers.metric, after_update=keep) if keep else None
    return train_and_save(job, data, pruned.model, pruned.architecture, distilling(job, data), hooks)


def _round(job: Job[Prune], number: int) -> Job[Prune]:
    """``job`` for a round's fine-tune: its part of the epochs, and for all but the last another folder to write to.

    A resumed build removes the same channels again, and finds the fine-tunes that were finished there.
    """
    rounds, epochs = job.params.rounds, job.params.epochs
    if rounds == 1:
        return job
    own = job.checkpoints / f"round-{number}"
    part = epochs // rounds + (epochs % rounds if number == rounds else 0)
    params, out = replace(job.params, epochs=part, rounds=1), job.out if number == rounds else own / "out"
    out.mkdir(parents=True, exist_ok=True)
    return dataclasses.replace(job, params=params, checkpoints=own, out=out)


def _without_channels(job: Job[Prune], data: Dataset, found: Pruned, number: int) -> Pruned:
    """The smaller network of a round."""
    from dlx_deploy.nn.pruning.order import order_of
    from dlx_deploy.nn.weights.network import channel_counts

    params = job.params
    job.progress(0, 0, f"following the network (prune.trace_seconds = {params.trace_seconds:g})")
    order = order_of(params, grounds(job, data))
    if params.rounds > 1:
        done = found.report.share if found.report else 0.0
        order = dataclasses.replace(order, goal=order.goal.of_round(number, params.rounds, done))
    model, report = task_of(data).inputs.pruned(found.model, found.architecture.input, order)
    before, counts = found.architecture, channel_counts(model)
    architecture = replace(
        before,
        pruned={name: counts[name] for name in {**before.pruned, **report.channels}},
        heads={**before.heads, **report.heads},
        split=(*before.split, *report.split),
    )
    return Pruned(model, architecture, found.report.and_then(report) if found.report else report)


def _removed(job: Job[Prune], pruned: Pruned) -> Metrics:
    """What was removed in all rounds, once it has been said."""
    from dlx_deploy.nn.pruning.order import goal_of
    from dlx_deploy.nn.pruning.search import TOLERANCE

    assert pruned.report is not None
    goal = dataclasses.replace(goal_of(job.params), basis=pruned.report.goal.basis)
    report = dataclasses.replace(pruned.report, goal=goal)
    job.progress(0, 0, report.told())
    if report.off > TOLERANCE:
        _log.warning("%s", report.told())
    metrics = {"macs_removed": report.reduction, "macs": float(report.macs_after)}
    metrics[_ASKED[report.goal.key]] = report.goal.asked
    if report.goal.key == "reduce_parameters":
        metrics["parameters_removed"] = report.share
    if report.goal.is_latency:
        metrics |= {"latency_before_ms": report.before, "latency_after_ms": report.after}
    return metrics


def _sparse(job: Job[Prune], data: Dataset, model: nn.Module) -> tuple[Update | None, Metrics]:
    """What keeps zeros after an update, once it has made ``model`` sparse, and how sparse that is."""
    from dlx_deploy.nn.pruning.reconstruction import refit
    from dlx_deploy.nn.pruning.sparsity import sparsity_masks

    params = job.params
    if params.sparsity == "none":
        return None, {}
    masks, batches = sparsity_masks(model, params), grounds(job, data).batches
    if params.reconstruct and batches is not None:
        refit(model, masks.kept, batches)
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
    stage = metered(rebuilding(STAGE, (pruned, *taught.networks)), config.prune)
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
    """The ``[prune]`` table: its fine-tuning, and a latency that a network can have."""
    check_latency(setup.params, setup.target)
    check_training("prune", _shortest(setup.params), setup.config.data)


def _shortest(params: Prune) -> Prune:
    """The fine-tune of the shortest round."""
    return replace(params, epochs=params.epochs // params.rounds, rounds=1)


def rehearse(setup: Setup[Prune]) -> None:
    """So much can be removed: which channels go depends on the weights, how many does not.

    Raises:
        StageFailed: it cannot. Else as for the network that is pruned.
    """
    params = setup.params
    rehearse_training(_shortest(params))
    if is_unknown(setup.config):
        return
    model, spec = smallest_network(setup.config)
    if params.sparsity != "none":
        from dlx_deploy.nn.pruning.sparsity import check_sparsity

        check_sparsity(model, params)
    if _removes_channels(params):
        from dlx_deploy.nn.pruning.order import order_of

        if (known := rehearsed(setup, setup.config)) is not None:
            task_for(setup.config.data).inputs.pruned(model, spec, order_of(params, known))


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
