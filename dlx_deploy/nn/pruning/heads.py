"""Structured pruning of our transformers for texts: whole attention heads and feed-forward channels are removed."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.models.attention import Attention, FeedForward, GatedFeedForward
from dlx_deploy.nn.models.inputs import TokenInput
from dlx_deploy.nn.pruning.channels import PruneReport, count_macs
from dlx_deploy.nn.pruning.choice import remedy
from dlx_deploy.nn.pruning.search import TOLERANCE, Part, fewest, mildest
from dlx_deploy.nn.weights.network import channel_counts

__all__ = ["has_heads", "prune_heads"]

log = logging.getLogger(__name__)


def has_heads(model: nn.Module) -> bool:
    """Whether ``model`` has attention or feed-forward layers of ours, so that its channels need not be followed."""
    return bool(_prunable(model))


def prune_heads(
    model: nn.Module, spec: TokenInput, reduce_macs: float, round_to: int = 8
) -> tuple[nn.Module, PruneReport]:
    """A smaller copy of ``model`` with ``reduce_macs`` (0..1) of its multiply-accumulates gone, and what was removed.

    Counted is one sequence of full length. Of every attention the heads with the smallest L2 norm over their query,
    key, value and output weights go first (Michel et al. 2019 show that many can), of every feed-forward layer the
    hidden channels with the smallest norm over the weights in and out; the same share everywhere, but one head and
    ``round_to`` channels stay. Channels become multiples of ``round_to``. The mildest pruning that reaches
    ``reduce_macs`` is taken.

    Raises:
        StageFailed: so much cannot be removed.
    """
    example = spec.example(1)
    before = count_macs(model, example)
    parts = [_part(module, round_to) for module in _prunable(model)]

    def left(kept: Sequence[int]) -> int:
        return count_macs(_pruned(model, kept), example)

    pruned = _pruned(model, mildest(parts, left, before, reduce_macs))
    after = count_macs(pruned, example)
    if 1 - after / before < reduce_macs - TOLERANCE:
        finest = left(fewest([_part(module, 1) for module in _prunable(model)]))
        reach = {(round_to, True): 1 - after / before, (1, True): 1 - finest / before}
        raise StageFailed(
            f"prune.reduce_macs is {reduce_macs:g}; with round_to = {round_to} at most {1 - after / before:.3f} of the "
            f"multiply-accumulates can be removed: {remedy((round_to, True), reach, reduce_macs)}"
        )
    counts = channel_counts(model)
    changed = {name: now for name, now in channel_counts(pruned).items() if now != counts[name]}
    report = PruneReport(before, after, _count(model), _count(pruned), changed)
    log.info("removed %.1f %% of %d MACs; %d layers changed", 100 * report.reduction, before, len(changed))
    return pruned.train(model.training), report


def _prunable(model: nn.Module) -> list[Attention | FeedForward | GatedFeedForward]:
    return [m for m in model.modules() if isinstance(m, Attention | FeedForward | GatedFeedForward)]


def _part(module: Attention | FeedForward | GatedFeedForward, round_to: int) -> Part:
    """What can go of ``module``: heads, or hidden channels."""
    if isinstance(module, Attention):
        return Part(_head_power(module).double().numpy(), 1)
    return Part(_channel_power(module).double().numpy(), round_to)


def _pruned(model: nn.Module, kept: Sequence[int]) -> nn.Module:
    """A copy of ``model`` in which ``kept`` heads or hidden channels, the strongest, stay of each prunable module."""
    smaller = copy.deepcopy(model)
    for module, count in zip(_prunable(smaller), kept, strict=True):
        if isinstance(module, Attention):
            _keep_heads(module, _largest(_head_power(module), count))
        else:
            _keep_channels(module, _largest(_channel_power(module), count))
    return smaller


def _head_power(attention: Attention) -> Tensor:
    """float32[H]: the sum of the squares of all weights of each head."""
    heads, width = attention.heads, attention.head_width
    rows = [attention.query.weight, attention.key.weight, attention.value.weight]
    power = sum((weight.detach().pow(2).view(heads, -1).sum(1) for weight in rows), torch.zeros(heads))
    return power + attention.out.weight.detach().pow(2).view(-1, heads, width).sum((0, 2))


def _channel_power(module: FeedForward | GatedFeedForward) -> Tensor:
    """float32[hidden]: the sum of the squares of all weights of each hidden channel."""
    return sum(
        (layer.weight.detach().pow(2).sum(1) for layer in _inward(module)), module.down.weight.detach().pow(2).sum(0)
    )


def _inward(module: FeedForward | GatedFeedForward) -> list[nn.Linear]:
    return [module.up, module.gate] if isinstance(module, GatedFeedForward) else [module.up]


def _keep_heads(attention: Attention, heads: Tensor) -> None:
    width = attention.head_width
    channels = (heads[:, None] * width + torch.arange(width)).flatten()
    for layer in (attention.query, attention.key, attention.value):
        _keep_outputs(layer, channels)
    _keep_inputs(attention.out, channels)


def _keep_channels(module: FeedForward | GatedFeedForward, channels: Tensor) -> None:
    for layer in _inward(module):
        _keep_outputs(layer, channels)
    _keep_inputs(module.down, channels)


def _largest(power: Tensor, count: int) -> Tensor:
    """int64[count]: the positions of the largest, ascending."""
    return torch.argsort(power, stable=True)[len(power) - count :].sort().values


def _keep_outputs(layer: nn.Linear, channels: Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight.detach()[channels].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[channels].clone())
    layer.out_features = len(channels)


def _keep_inputs(layer: nn.Linear, channels: Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight.detach()[:, channels].clone())
    layer.in_features = len(channels)


def _count(model: nn.Module) -> int:
    sizes: Sequence[int] = [p.numel() for p in model.parameters()]
    return sum(sizes)
