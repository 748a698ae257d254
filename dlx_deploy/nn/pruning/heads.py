"""Structured pruning of our transformers for texts: whole attention heads and feed-forward channels are removed."""

from __future__ import annotations

import copy
import logging
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.models.attention import Attention, FeedForward, GatedFeedForward
from dlx_deploy.nn.models.inputs import TokenInput
from dlx_deploy.nn.pruning.channels import ROUNDING, PruneReport, reconstructed
from dlx_deploy.nn.pruning.choice import remedy
from dlx_deploy.nn.pruning.costs import cost_of, count_macs, count_parameters
from dlx_deploy.nn.pruning.importance import losses_by_weight
from dlx_deploy.nn.pruning.order import Goal, Order
from dlx_deploy.nn.pruning.reconstruction import Reader
from dlx_deploy.nn.pruning.search import Part, fewest, mildest
from dlx_deploy.nn.weights.network import channel_counts

__all__ = ["has_heads", "prune_heads"]

log = logging.getLogger(__name__)


def has_heads(model: nn.Module) -> bool:
    """Whether ``model`` has attention or feed-forward layers of ours, so that its channels need not be followed."""
    return bool(_prunable(model))


def prune_heads(model: nn.Module, spec: TokenInput, asked: Order | float) -> tuple[nn.Module, PruneReport]:
    """A smaller copy of ``model`` with so much gone as is ``asked``, and what was removed.

    Counted is one sequence of full length. Of every attention the heads with the smallest L2 norm over their query,
    key, value and output weights go first (Michel et al. 2019 show that many can), of every feed-forward layer the
    hidden channels with the smallest norm over the weights in and out, or those without which the loss changes least
    (``importance``); the same share everywhere, but one head and ``round_to`` channels stay. Channels become multiples
    of ``round_to``. The mildest pruning that reaches the goal is taken. A number for ``asked`` is a share of the
    multiply-accumulates.

    Raises:
        StageFailed: so much cannot be removed, or a gradient is not finite.
    """
    order = asked if isinstance(asked, Order) else Order(Goal("reduce_macs", asked))
    powers = _powers(model, order)
    before = cost_of(model, spec, order)
    share = order.goal.share(before)

    known: dict[tuple[int, ...], float] = {}  # a latency is slow to tell, and not the same each time

    def left(kept: Sequence[int]) -> float:
        if (key := tuple(kept)) not in known:
            known[key] = cost_of(_pruned(model, powers, kept), spec, order)
        return known[key]

    parts = _parts(model, powers, order.round_to, order.grouping == "isomorphic")
    kept = mildest(parts, left, before, share, order.goal.near)
    pruned = _pruned(model, powers, kept)
    after = left(kept)
    if 1 - after / before < share - order.goal.near - ROUNDING:
        finest = left(fewest(_parts(model, powers, 1)))
        now = (order.round_to, True)
        reach = {now: 1 - after / before, (1, True): 1 - finest / before}
        raise StageFailed(
            f"prune.{order.goal.key} is {order.goal.asked:g}; with round_to = {order.round_to} "
            f"{order.goal.reach(reach[now], before)}: {remedy(order.goal, now, reach, before)}"
        )
    fitted = reconstructed(model, pruned, _readers(model, powers, kept), order)
    counts, example = channel_counts(model), spec.example(1)
    changed = {name: now for name, now in channel_counts(pruned).items() if now != counts[name]}
    macs = [count_macs(m, example) for m in (model, pruned)]
    sizes = [count_parameters(m) for m in (model, pruned)]
    report = PruneReport(order.goal, before, after, macs[0], macs[1], sizes[0], sizes[1], changed, fitted=fitted)
    log.info("%s; %d layers changed", report.told(), len(changed))
    return pruned.train(model.training), report


def _prunable(model: nn.Module) -> dict[str, Attention | FeedForward | GatedFeedForward]:
    return {n: m for n, m in model.named_modules() if isinstance(m, Attention | FeedForward | GatedFeedForward)}


def _parts(model: nn.Module, powers: Mapping[str, Tensor], round_to: int, alike: bool = False) -> list[Part]:
    """What can go of each prunable module, or of those that are ``alike``: heads one at a time, or hidden channels."""
    steps = {name: 1 if isinstance(module, Attention) else round_to for name, module in _prunable(model).items()}
    families = {name: _structure(module) if alike else None for name, module in _prunable(model).items()}
    return [Part(powers[name].double().numpy(), step, families[name]) for name, step in steps.items()]


def _structure(module: Attention | FeedForward | GatedFeedForward) -> Hashable:
    return type(module).__name__, *(tuple(weight.shape) for weight in module.parameters())


def _pruned(model: nn.Module, powers: Mapping[str, Tensor], kept: Sequence[int]) -> nn.Module:
    """A copy of ``model`` in which ``kept`` heads or hidden channels, the strongest, stay of each prunable module."""
    smaller = copy.deepcopy(model)
    for (name, module), count in zip(_prunable(smaller).items(), kept, strict=True):
        if isinstance(module, Attention):
            _keep_heads(module, _largest(powers[name], count))
        else:
            _keep_channels(module, _largest(powers[name], count))
    return smaller


def _powers(model: nn.Module, order: Order) -> dict[str, Tensor]:
    """By prunable module, how much each of its heads or hidden channels matters."""
    modules, grounds = _prunable(model), order.grounds
    if order.importance == "l2":
        return {n: _head_power(m) if isinstance(m, Attention) else _channel_power(m) for n, m in modules.items()}
    assert grounds.batches is not None
    assert grounds.loss is not None
    changes = {name: torch.zeros(1, dtype=torch.float64) for name in modules}
    for product in losses_by_weight(model, grounds.batches, grounds.loss):
        for name, module in modules.items():
            reader = "out" if isinstance(module, Attention) else "down"
            columns = product[f"{name}.{reader}.weight"].double().sum(0)
            parts = columns.view(module.heads, -1).sum(1) if isinstance(module, Attention) else columns
            changes[name] = changes[name] + parts**2
    return changes


def _readers(model: nn.Module, powers: Mapping[str, Tensor], kept: Sequence[int]) -> dict[str, Reader]:
    """The layers that read heads or hidden channels, and which of these stay."""
    found = {}
    for (name, module), count in zip(_prunable(model).items(), kept, strict=True):
        heads = isinstance(module, Attention)
        layer = module.out if isinstance(module, Attention) else module.down
        stay = torch.zeros(len(powers[name]), dtype=torch.bool)
        stay[_largest(powers[name], count)] = True
        read = stay.repeat_interleave(layer.in_features // len(stay))
        if count < len(stay):
            found[f"{name}.{'out' if heads else 'down'}"] = Reader(
                read, torch.ones(layer.out_features, dtype=torch.bool)
            )
    return found


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
