"""Channels without which the loss changes least go first, and what that is measured by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.models.inputs import TokenInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.pruning.batches import SomeOf
from dlx_deploy.nn.pruning.channels import prune_channels
from dlx_deploy.nn.pruning.groups import resolve
from dlx_deploy.nn.pruning.heads import prune_heads
from dlx_deploy.nn.pruning.importance import changes, losses_by_weight
from dlx_deploy.nn.pruning.operations import rule_for
from dlx_deploy.nn.pruning.order import Goal, Grounds, Order
from dlx_deploy.nn.pruning.trace import trace_channels
from dlx_deploy.nn.training.batches import Batch, Feed, TokenFeed, TrainData
from dlx_deploy.nn.training.classes import supervised

SHAPE = (2, 3, 6, 6)


class Plain:
    """Rows as they are."""

    def __call__(self, rows: Tensor, /) -> Tensor:
        return rows.float()

    source: Callable[..., object]


def some(inputs: Tensor, classes: int, feed: Feed, count: int = 24) -> SomeOf:
    targets = np.random.default_rng(3).integers(0, classes, len(inputs))
    stored = inputs.numpy()
    return SomeOf(TrainData(stored, targets, stored, targets, feed, classes), 0, count, 8)


def images() -> SomeOf:
    return some(torch.randn(32, *SHAPE[1:], generator=torch.Generator().manual_seed(1)), 4, Plain())  # type: ignore[arg-type]


def network() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU()
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)).eval()


def taylor(batches: SomeOf, asked: float = 0.3, round_to: int = 8) -> Order:
    return Order(Goal(asked=asked), round_to, importance="taylor", grounds=Grounds(batches, supervised(0.0)))


def test_importance_is_the_slope_of_the_loss_as_channels_fade() -> None:
    """Scale what is read of a class by 1 - t: the derivative of each batch's loss at t = 0, squared, averaged."""
    model = network().double()
    traced = resolve(trace_channels(model.float(), torch.zeros(SHAPE), rule_for, 60), 1, SHAPE[0])
    model, loss, step = model.double(), supervised(0.0), 1e-5

    def value(batch: Batch, layer: str, channel: int, share: float) -> float:
        weight = model.get_parameter(f"{layer}.weight")
        with torch.no_grad():
            kept = weight[:, channel].clone()
            weight[:, channel] *= 1 - share
            out = float(loss(model(batch.inputs.double()), batch).mean())
            weight[:, channel] = kept
        return out

    batches = [Batch(b.inputs.double(), b.targets, b.rows) for b in images()]
    power = changes(traced.layers.values(), traced.class_of, losses_by_weight(model, batches, loss))
    for group in traced.groups:
        reader = {"0": "3", "3": "7"}[group.layers[0]]
        slopes = [
            [(value(b, reader, c, step) - value(b, reader, c, -step)) / (2 * step) for b in batches] for c in (0, 5)
        ]
        expected = np.square(slopes).mean(1)
        assert power[group.classes[[0, 5]]] == pytest.approx(expected, rel=1e-4)


def test_channels_that_nothing_rests_on_go_though_their_weights_are_large() -> None:
    model = network()
    with torch.no_grad():
        model[3].weight[:, ::2] = 0  # nobody reads them
        model[0].weight[::2] *= 100
    by_size, _ = prune_channels(model, SHAPE, 0.3)
    by_loss, report = prune_channels(model, SHAPE, taylor(images()))
    x = next(iter(images())).inputs
    assert by_loss[0].out_channels == 8  # type: ignore[index,union-attr]
    assert torch.equal(by_loss[0].weight, model[0].weight[1::2])  # type: ignore[index,union-attr]
    assert not torch.allclose(by_size(x), by_loss(x), atol=1e-3)
    assert report.reduction >= 0.28


def test_heads_that_nothing_rests_on_go_though_their_weights_are_large() -> None:
    torch.manual_seed(0)
    spec = TokenInput(50, 16)
    arguments = {"depth": 1, "heads": 4, "width": 32, "dropout": 0.0}
    model = build_model("transformer", arguments, 3, spec).eval()
    layer = model.layers[0]  # type: ignore[index,union-attr]
    with torch.no_grad():
        layer.attention.out.weight[:, 8:16] = 0
        layer.attention.value.weight[8:16] *= 100
        layer.feed_forward.down.weight[:, :32] = 0
        layer.feed_forward.up.weight[:32] *= 100
    tokens = torch.randint(1, 50, (32, 16), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    pruned, _ = prune_heads(model, spec, taylor(some(tokens, 3, TokenFeed(0)), 0.2))
    left = pruned.layers[0]  # type: ignore[index,union-attr]
    assert torch.equal(left.attention.value.weight, layer.attention.value.weight[[*range(8), *range(16, 32)]])
    assert torch.allclose(pruned(tokens.long()), model(tokens.long()), atol=1e-5)


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    model = network()
    with torch.no_grad():
        model[7].bias[0] = torch.inf
    with pytest.raises(StageFailed, match=r"prune: the .* is not finite, .* set prune\.importance = 'l2'"):
        list(losses_by_weight(model, images(), supervised(0.0)))


def test_samples_are_drawn_once() -> None:
    first, again = ([b.rows.tolist() for b in images()] for _ in range(2))
    assert first == again
    assert [len(rows) for rows in first] == [8, 8, 8]
    assert len({row for rows in first for row in rows}) == 24
