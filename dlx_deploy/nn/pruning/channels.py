"""Structured pruning: whole channels are removed, so that the network is smaller and faster on any runtime."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.data.dataset import Images
from dlx_deploy.nn.pruning.batches import Reads, batch_size, one, plain
from dlx_deploy.nn.pruning.choice import Search, remedy
from dlx_deploy.nn.pruning.costs import copied, cost_of, costs_of, count_macs, count_parameters
from dlx_deploy.nn.pruning.groups import Network, readers, remove, resolve
from dlx_deploy.nn.pruning.importance import changes, losses_by_weight
from dlx_deploy.nn.pruning.operations import rule_for
from dlx_deploy.nn.pruning.oracle import Oracle
from dlx_deploy.nn.pruning.order import Goal, Order
from dlx_deploy.nn.pruning.reconstruction import Reader, reconstruct
from dlx_deploy.nn.pruning.split import split_what_can_be
from dlx_deploy.nn.pruning.trace import Trace, trace_channels
from dlx_deploy.nn.training.augment import Normalise
from dlx_deploy.nn.weights.attention import split_attention
from dlx_deploy.nn.weights.network import Channels, channel_counts

__all__ = ["ROUNDING", "PruneReport", "prune_channels", "recalibrate_batchnorm", "reconstructed"]

log = logging.getLogger(__name__)

ROUNDING = 1e-9
"""Of shares."""


@dataclass(frozen=True)
class PruneReport:
    """What was removed. ``channels`` holds the layers whose channel counts changed, as they are now.

    ``heads`` holds the modules that lost heads of attention, and how many they have; ``split`` the attention of torch's
    own kind that is in parts now. ``left`` says of the layers whose outputs had to stay why they had. ``before`` and
    ``after``: what ``goal`` counts. ``fitted``: of layers that were fitted anew, how much of their error that left.
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
    fitted: dict[str, float] = field(default_factory=dict)

    @property
    def reduction(self) -> float:
        """The share of multiply-accumulates that was removed, 0..1."""
        return 1 - self.macs_after / self.macs_before

    @property
    def share(self) -> float:
        """The share of what ``goal`` counts that was removed, 0..1."""
        return 1 - self.after / self.before

    @property
    def off(self) -> float:
        """By how much that is another share than what was asked."""
        return abs(self.share - self.goal.share(self.before))

    def and_then(self, later: PruneReport) -> PruneReport:
        """What was removed by this and, of what it left, by ``later``."""
        return replace(
            later,
            before=self.before,
            macs_before=self.macs_before,
            params_before=self.params_before,
            channels={**self.channels, **later.channels},
            heads={**self.heads, **later.heads},
            split=(*self.split, *later.split),
        )

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
    whole = copied(model).eval()
    parts = split_what_can_be(whole, reads)
    trace = trace_channels(whole, plain(reads), rule_for, order.trace_seconds, order.grounds.progress)
    macs_before = count_macs(whole, one(reads))
    if not macs_before:
        raise StageFailed(
            f"prune: no multiply-accumulates are counted in this {type(model).__name__} (it has no convolution, linear "
            "layer or other product of matrices), so there are none to remove; set prune.enabled = false to ship it as "
            "it is"
        )
    network = _ranked(resolve(trace, order.round_to, batch_size(reads)), whole, order)
    before = cost_of(whole, reads, order)
    costs = costs_of(network, whole, before, order)
    oracle, alike = Oracle.of(whole, network, reads), order.grouping == "isomorphic"
    search = Search(network, oracle, before, costs, order.goal.near, alike)
    plan = search.plan(order.keep_trunk, order.goal.share(before))
    if search.share(plan) < order.goal.share(before) - order.goal.near - ROUNDING:
        raise _too_much(trace, search, order)
    pruned = copied(model)
    split = parts.among(network.smaller(plan))
    split_attention(pruned, split)
    remove(pruned, network, plan)
    fitted = reconstructed(whole, pruned, readers(network, plan), order)
    counts = channel_counts(model)
    report = PruneReport(
        order.goal,
        before,
        search.cost(plan),
        macs_before,
        count_macs(pruned, one(reads)),
        count_parameters(model),
        count_parameters(pruned),
        {name: now for name, now in channel_counts(pruned).items() if now != counts.get(name)},
        {**network.left, **search.dropped, **parts.left},
        network.heads_left(plan),
        split,
        fitted,
    )
    log.info("%s; %d layers changed", report.told(), len(report.channels))
    return pruned, report


def reconstructed(model: nn.Module, pruned: nn.Module, readers: Mapping[str, Reader], order: Order) -> dict[str, float]:
    """What ``reconstruct`` says, where ``order`` asks for it and there are data."""
    if not order.reconstruct or order.grounds.batches is None:
        return {}
    return reconstruct(model, pruned, readers, order.grounds.batches)


def _ranked(network: Network, model: nn.Module, order: Order) -> Network:
    """``network`` whose classes matter as ``order.importance`` says."""
    grounds = order.grounds
    if order.importance == "l2":
        return network
    assert grounds.batches is not None
    assert grounds.loss is not None
    products = losses_by_weight(model, grounds.batches, grounds.loss)
    return replace(network, power=changes(network.layers.values(), network.class_of, products))


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
