"""Structured pruning: whole channels are removed, so that the network is smaller and faster on any runtime."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.data.dataset import Images
from dlx_deploy.nn.pruning.batches import Reads, batch_size, one, plain
from dlx_deploy.nn.pruning.choice import Search, remedy
from dlx_deploy.nn.pruning.groups import Network, Plan, remove, resolve
from dlx_deploy.nn.pruning.importance import changes, losses_by_weight
from dlx_deploy.nn.pruning.operations import rule_for
from dlx_deploy.nn.pruning.oracle import Oracle
from dlx_deploy.nn.pruning.order import Goal, Order
from dlx_deploy.nn.pruning.split import split_what_can_be
from dlx_deploy.nn.pruning.trace import Trace, trace_channels
from dlx_deploy.nn.training.augment import Normalise
from dlx_deploy.nn.weights.attention import operation_by_operation, split_attention
from dlx_deploy.nn.weights.network import Channels, channel_counts

__all__ = [
    "ROUNDING",
    "PruneReport",
    "cost_of",
    "count_macs",
    "count_parameters",
    "prune_channels",
    "recalibrate_batchnorm",
]

log = logging.getLogger(__name__)

ROUNDING = 1e-9
"""Of shares."""


@dataclass(frozen=True)
class PruneReport:
    """What was removed. ``channels`` holds the layers whose channel counts changed, as they are now.

    ``heads`` holds the modules that lost heads of attention, and how many they have; ``split`` the attention of torch's
    own kind that is in parts now. ``left`` says of the layers whose outputs had to stay why they had. ``before`` and
    ``after``: what ``goal`` counts.
    """

    goal: Goal
    before: float
    after: float
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    channels: dict[str, Channels]
    left: dict[str, str] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)
    split: tuple[str, ...] = ()

    @property
    def reduction(self) -> float:
        """The share of multiply-accumulates that was removed, 0..1."""
        return 1 - self.macs_after / self.macs_before

    @property
    def off(self) -> float:
        """By how much the share that was removed is another than what was asked, 0..1."""
        return abs(1 - self.after / self.before - self.goal.share(self.before))

    def told(self) -> str:
        """What was asked and what was reached, in a sentence."""
        return self.goal.told(self.before, self.after)


def prune_channels(model: nn.Module, reads: Reads, asked: Order | float) -> tuple[nn.Module, PruneReport]:
    """A smaller copy of ``model`` with so much gone as is ``asked``, and what was removed.

    Channels that matter least go first, the same share everywhere: those with the smallest L2 norm over all layers that
    they tie together, or those without which the loss changes least (``importance``); counts become multiples of
    ``round_to``. Channels of a head of attention go together: whole heads (Michel et al. 2019 show that many can). The
    mildest pruning that reaches the goal is taken. Left alone: the classifier, channels that pass an operation which is
    not known to keep them apart, layers that other kinds of parameters depend on (layer normalisation), and with
    ``keep_trunk`` all layers whose outputs a residual sum ties together. What is given back has passed the ``Oracle``:
    it answers as ``model`` does when nothing reads the removed channels. A number for ``asked`` is a share of the
    multiply-accumulates.

    Raises:
        StageFailed: the channels cannot be followed (within ``trace_seconds``), there are no multiply-accumulates, so
            much cannot be removed, or a gradient is not finite.
    """
    order = asked if isinstance(asked, Order) else Order(Goal("reduce_macs", asked))
    whole = _copied(model).eval()
    parts = split_what_can_be(whole, reads)
    trace = trace_channels(whole, plain(reads), rule_for, order.trace_seconds)
    macs_before = count_macs(whole, one(reads))
    if not macs_before:
        raise StageFailed(
            f"prune: no multiply-accumulates are counted in this {type(model).__name__} (it has no convolution, linear "
            "layer or other product of matrices), so there are none to remove; set prune.enabled = false to ship it as "
            "it is"
        )
    network = _ranked(resolve(trace, order.round_to, batch_size(reads)), whole, order)
    before = cost_of(whole, reads, order)
    costs = _costs(network, whole, before, order)
    search = Search(network, Oracle.of(whole, network, reads), before, costs, order.goal.near)
    plan = search.plan(order.keep_trunk, order.goal.share(before))
    if search.share(plan) < order.goal.share(before) - order.goal.near - ROUNDING:
        raise _too_much(trace, search, order)
    pruned = _copied(model)
    split = parts.among(network.smaller(plan))
    split_attention(pruned, split)
    remove(pruned, network, plan)
    counts = channel_counts(model)
    report = PruneReport(
        order.goal,
        before,
        cost_of(pruned, reads, order),
        macs_before,
        count_macs(pruned, one(reads)),
        count_parameters(model),
        count_parameters(pruned),
        {name: now for name, now in channel_counts(pruned).items() if now != counts.get(name)},
        {**network.left, **search.dropped, **parts.left},
        network.heads_left(plan),
        split,
    )
    log.info("%s; %d layers changed", report.told(), len(report.channels))
    return pruned, report


def _ranked(network: Network, model: nn.Module, order: Order) -> Network:
    """``network`` whose classes matter as ``order.importance`` says."""
    grounds = order.grounds
    if order.importance == "l2":
        return network
    assert grounds.batches is not None
    assert grounds.loss is not None
    products = losses_by_weight(model, grounds.batches, grounds.loss)
    return replace(network, power=changes(network.layers.values(), network.class_of, products))


def cost_of(model: nn.Module, reads: Reads, order: Order) -> float:
    """What the goal of ``order`` counts of ``model``: multiply-accumulates of a sample, parameters, milliseconds."""
    if order.goal.is_latency:
        assert order.grounds.meter is not None
        return order.grounds.meter.ms(model)
    return count_parameters(model) if order.goal.key == "reduce_parameters" else count_macs(model, one(reads))


def _costs(network: Network, model: nn.Module, before: float, order: Order) -> Callable[[Plan], float]:
    """The same of what a plan leaves of ``model``, which costs ``before``."""
    meter = order.grounds.meter
    if order.goal.is_latency and meter is not None:

        def measured(plan: Plan) -> float:
            pruned = _copied(model)
            remove(pruned, network, plan)
            return meter.ms(pruned)

        return measured
    removed = network.parameters_removed if order.goal.key == "reduce_parameters" else network.macs_removed
    return lambda plan: before - removed(plan)


def _too_much(trace: Trace, search: Search, order: Order) -> StageFailed:
    goal, now, before = order.goal, (order.round_to, order.keep_trunk), search.before
    share, reach = goal.share(before), {}
    for option in dict.fromkeys([now, (now[0], False), (1, now[1]), (1, False)]):
        finer = replace(search.network, groups=resolve(trace, option[0], search.network.batch).groups)
        reach[option] = replace(search, network=finer).reach(option[1])
        if reach[option] >= share - goal.near:
            break  # the first that suffices is advised
    left = {**search.network.left, **search.dropped}
    named = "; ".join(f"{name!r}: {why}" for name, why in list(left.items())[:3])
    return StageFailed(
        f"prune.{goal.key} is {goal.asked:g}; with round_to = {now[0]}, keep_trunk = {str(now[1]).lower()} "
        f"{goal.reach(reach[now], before)}: {remedy(goal, now, reach, before)}. Layers that must keep their channels: "
        f"{len(left)}" + (f" ({named})" if named else "")
    )


def recalibrate_batchnorm(model: nn.Module, images: Images, normalise: Normalise, batch: int = 128) -> None:
    """Set the running statistics of every batch normalisation in ``model`` to their plain average over ``images``.

    Removing channels shifts what later layers see; this alone wins back a good part of the accuracy, without training.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta, training = [m.momentum for m in norms], model.training
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative average
        norm.train()
    parts = max(len(images) // batch, 1)
    with torch.no_grad():
        for part in np.array_split(np.arange(len(images)), parts):
            model(normalise(torch.from_numpy(np.array(images[part[0] : part[-1] + 1]))))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)


def count_macs(model: nn.Module, example: Tensor) -> int:
    """The multiply-accumulates of ``model`` for ``example``, a batch of one."""
    training = model.training
    model.eval()
    with torch.no_grad(), operation_by_operation(), FlopCounterMode(display=False) as counter:
        model(example)
    model.train(training)
    return int(counter.get_total_flops()) // 2


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except RuntimeError as e:  # a weight computed from others outside of torch's parametrizations
        raise StageFailed(
            f"prune: the network cannot be copied ({e}); use torch.nn.utils.parametrizations, or set prune.enabled "
            "= false"
        ) from e


def count_parameters(model: nn.Module) -> int:
    """How many numbers ``model`` has learned; shared ones once."""
    return sum(p.numel() for p in model.parameters())
