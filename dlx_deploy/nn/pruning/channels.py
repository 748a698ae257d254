"""Structured pruning: whole channels are removed, so that the network is smaller and faster on any runtime."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.data.dataset import Images
from dlx_deploy.nn.pruning.batches import Reads, batch_size, one, plain
from dlx_deploy.nn.pruning.choice import Search, remedy
from dlx_deploy.nn.pruning.groups import remove, resolve
from dlx_deploy.nn.pruning.operations import rule_for
from dlx_deploy.nn.pruning.oracle import Oracle
from dlx_deploy.nn.pruning.search import TOLERANCE
from dlx_deploy.nn.pruning.split import split_what_can_be
from dlx_deploy.nn.pruning.trace import Trace, trace_channels
from dlx_deploy.nn.training.augment import Normalise
from dlx_deploy.nn.weights.attention import operation_by_operation, split_attention
from dlx_deploy.nn.weights.network import Channels, channel_counts

__all__ = ["PruneReport", "count_macs", "prune_channels", "recalibrate_batchnorm"]

log = logging.getLogger(__name__)

_TRACE_SECONDS = 300.0  # as in prune.trace_seconds


@dataclass(frozen=True)
class PruneReport:
    """What was removed. ``channels`` holds the layers whose channel counts changed, as they are now.

    ``heads`` holds the modules that lost heads of attention, and how many they have; ``split`` the attention of torch's
    own kind that is in parts now. ``left`` says of the layers whose outputs had to stay why they had.
    """

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

    def told(self, asked: float) -> str:
        """What was ``asked`` of the multiply-accumulates and what was reached, in a sentence."""
        text = f"{self.reduction:.3f} of the multiply-accumulates removed, {asked:g} asked (prune.reduce_macs)"
        if self.reduction > asked + TOLERANCE:
            text += "; the smallest step that reaches it takes more: a smaller prune.round_to has finer steps"
        return text


def prune_channels(
    model: nn.Module,
    reads: Reads,
    reduce_macs: float,
    *,
    round_to: int = 8,
    keep_trunk: bool = True,
    trace_seconds: float = _TRACE_SECONDS,
) -> tuple[nn.Module, PruneReport]:
    """A smaller copy of ``model`` with ``reduce_macs`` (0..1) of its multiply-accumulates gone, and what was removed.

    Channels with the smallest L2 norm over all layers that they tie together go first, the same share everywhere;
    channel counts become multiples of ``round_to``. Channels of a head of attention go together: whole heads
    (Michel et al. 2019 show that many can). The mildest pruning that reaches ``reduce_macs`` is taken. Left alone: the
    classifier, channels that pass an operation which is not known to keep them apart, layers that other kinds of
    parameters depend on (layer normalisation), and with ``keep_trunk`` all layers whose outputs a residual sum ties
    together. What is given back has passed the ``Oracle``: it answers as ``model`` does when nothing
    reads the removed channels.

    Raises:
        StageFailed: the channels cannot be followed (within ``trace_seconds``), there are no multiply-accumulates, or
            so much cannot be removed.
    """
    whole = _copied(model).eval()
    parts = split_what_can_be(whole, reads)
    trace = trace_channels(whole, plain(reads), rule_for, trace_seconds)
    before = count_macs(whole, one(reads))
    if not before:
        raise StageFailed(
            f"prune: no multiply-accumulates are counted in this {type(model).__name__} (it has no convolution, linear "
            "layer or other product of matrices), so there are none to remove; set prune.enabled = false to ship it as "
            "it is"
        )
    network = resolve(trace, round_to, batch_size(reads))
    search = Search(network, Oracle.of(whole, network, reads), before)
    plan = search.plan(keep_trunk, reduce_macs)
    if search.share(plan) < reduce_macs - TOLERANCE:
        raise _too_much(trace, search, reduce_macs, (round_to, keep_trunk))
    pruned = _copied(model)
    split = parts.among(network.smaller(plan))
    split_attention(pruned, split)
    remove(pruned, network, plan)
    after = count_macs(pruned, one(reads))
    counts = channel_counts(model)
    changed = {name: now for name, now in channel_counts(pruned).items() if now != counts.get(name)}
    left = {**network.left, **search.dropped, **parts.left}
    params, heads = (_count_params(model), _count_params(pruned)), network.heads_left(plan)
    report = PruneReport(before, after, *params, changed, left, heads, split)
    log.info("removed %.1f %% of %d MACs; %d layers changed", 100 * report.reduction, before, len(changed))
    return pruned, report


def _too_much(trace: Trace, search: Search, reduce_macs: float, now: tuple[int, bool]) -> StageFailed:
    round_to, keep_trunk = now
    reach = {}
    for option in dict.fromkeys([now, (round_to, False), (1, keep_trunk), (1, False)]):
        other = Search(resolve(trace, option[0], search.network.batch), search.oracle, search.before, search.dropped)
        reach[option] = other.reach(option[1])
        if reach[option] >= reduce_macs - TOLERANCE:
            break  # the first that suffices is advised
    left = {**search.network.left, **search.dropped}
    named = "; ".join(f"{name!r}: {why}" for name, why in list(left.items())[:3])
    return StageFailed(
        f"prune.reduce_macs is {reduce_macs:g}; with round_to = {round_to}, keep_trunk = {str(keep_trunk).lower()} at "
        f"most {reach[now]:.3f} of the multiply-accumulates can be removed: {remedy(now, reach, reduce_macs)}. Layers "
        f"that must keep their channels: {len(left)}" + (f" ({named})" if named else "")
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


def _count_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
