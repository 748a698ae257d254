"""Structured pruning of transformers for texts: whole attention heads and feed-forward channels are removed."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.artifact import channel_counts
from dlx_deploy.nn.models.attention import Attention, FeedForward, GatedFeedForward
from dlx_deploy.nn.models.inputs import TokenInput
from dlx_deploy.nn.pruning import PruneReport, count_macs, mildest

__all__ = ["prune_heads"]

log = logging.getLogger(__name__)


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
        StageFailed: the network has no attention or feed-forward layer of ours, or so much cannot be removed.
    """
    if not any(isinstance(module, Attention | FeedForward | GatedFeedForward) for module in model.modules()):
        raise StageFailed(
            "prune: only the heads and feed-forward layers of 'transformer' and 'efficient_transformer' can be removed "
            f"from a network for texts, and this {type(model).__name__} has none; set prune.enabled = false"
        )
    example = spec.example(1)
    before = count_macs(model, example)

    def attempt(ratio: float) -> tuple[nn.Module, int]:
        smaller = copy.deepcopy(model)
        for module in smaller.modules():
            if isinstance(module, Attention):
                _prune_attention(module, max(round(module.heads * (1 - ratio)), 1))
            elif isinstance(module, FeedForward | GatedFeedForward):
                _prune_feed_forward(module, _kept(module.up.out_features, ratio, round_to))
        return smaller, count_macs(smaller, example)

    pruned, after = mildest(attempt, before, reduce_macs, f"round_to = {round_to}")
    counts = channel_counts(model)
    changed = {name: now for name, now in channel_counts(pruned).items() if now != counts[name]}
    report = PruneReport(before, after, _count(model), _count(pruned), changed)
    log.info("removed %.1f %% of %d MACs; %d layers changed", 100 * report.reduction, before, len(changed))
    return pruned.train(model.training), report


def _kept(channels: int, ratio: float, round_to: int) -> int:
    wanted = math.floor(channels * (1 - ratio) / round_to + 0.5) * round_to
    return min(max(wanted, round_to), channels)


def _prune_attention(attention: Attention, kept: int) -> None:
    heads, width = attention.heads, attention.head_width
    rows = [attention.query.weight, attention.key.weight, attention.value.weight]
    power = sum(weight.pow(2).view(heads, -1).sum(1) for weight in rows)  # [H]
    power = power + attention.out.weight.pow(2).view(-1, heads, width).sum((0, 2))
    stay = _largest(power, kept)
    channels = (stay[:, None] * width + torch.arange(width)).flatten()
    for layer in (attention.query, attention.key, attention.value):
        _keep_outputs(layer, channels)
    _keep_inputs(attention.out, channels)


def _prune_feed_forward(module: FeedForward | GatedFeedForward, kept: int) -> None:
    inward = [module.up, module.gate] if isinstance(module, GatedFeedForward) else [module.up]
    power = sum(layer.weight.pow(2).sum(1) for layer in inward) + module.down.weight.pow(2).sum(0)
    stay = _largest(power, kept)
    for layer in inward:
        _keep_outputs(layer, stay)
    _keep_inputs(module.down, stay)


def _largest(power: Tensor, count: int) -> Tensor:
    """int64[count]: the positions of the largest, ascending."""
    return torch.argsort(power.detach(), descending=True, stable=True)[:count].sort().values


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
