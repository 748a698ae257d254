from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.models.attention import Attention
from dlx_deploy.nn.models.inputs import TokenInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.pruning.heads import has_heads, prune_heads
from dlx_deploy.nn.pruning.order import Goal, Grounds, Meter, Order
from dlx_deploy.nn.weights.network import Architecture, load_model, save_model

SPEC = TokenInput(50, 16)
ARGUMENTS = {"depth": 2, "heads": 4, "width": 32, "dropout": 0.0}
TOKENS = torch.tensor([[3, 4, 5, 6, 7], [9, 8, 0, 0, 0]])


def network(name: str, **arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, {**ARGUMENTS, **arguments}, 3, SPEC).eval()


@pytest.mark.parametrize("name", ["transformer", "efficient_transformer"])
def test_heads_and_channels_go_and_the_artifact_rebuilds_them(name: str, tmp_path: Path) -> None:
    model = network(name)
    pruned, report = prune_heads(model, SPEC, 0.4)
    assert 0.38 <= report.reduction < 0.75
    assert report.params_after < report.params_before
    attention = pruned.layers[0].attention  # type: ignore[index,union-attr]
    assert attention.heads < 4
    assert pruned.layers[0].feed_forward.up.out_features % 8 == 0  # type: ignore[index,union-attr]
    save_model(
        tmp_path, pruned, Architecture(model=name, arguments=ARGUMENTS, classes=3, input=SPEC, pruned=report.channels)
    )
    loaded, _ = load_model(tmp_path)
    assert torch.equal(loaded(TOKENS), pruned(TOKENS))


def test_what_is_removed_is_what_is_weakest() -> None:
    """Heads and channels whose weights are zero go first, and the outputs stay as they were."""
    model = network("transformer")
    with torch.no_grad():
        for layer in model.layers:  # type: ignore[union-attr]
            for linear in (layer.attention.query, layer.attention.key, layer.attention.value):
                linear.weight[8:16] = 0
                linear.bias[8:16] = 0
            layer.attention.out.weight[:, 8:16] = 0
            layer.feed_forward.up.weight[:32] = 0
            layer.feed_forward.up.bias[:32] = 0
            layer.feed_forward.down.weight[:, :32] = 0
    pruned, _ = prune_heads(model, SPEC, 0.2)
    heads = [m.heads for m in pruned.modules() if isinstance(m, Attention)]
    assert heads == [3, 3]
    assert pruned.layers[0].feed_forward.up.out_features in (96, 104)  # type: ignore[index,union-attr]
    assert torch.allclose(pruned(TOKENS), model(TOKENS), atol=1e-5)


def test_what_cannot_be_pruned() -> None:
    assert has_heads(network("transformer"))
    assert not has_heads(nn.Linear(2, 2))
    with pytest.raises(StageFailed, match=r"prune\.reduce_macs is 0\.99; with round_to = 8 at most 0\.\d+ of the"):
        prune_heads(network("transformer"), SPEC, 0.99)


def test_what_is_advised_helps() -> None:
    model = network("transformer")
    with pytest.raises(StageFailed, match=r"lower prune\.reduce_macs to .*, or set prune\.round_to = 1") as seen:
        prune_heads(model, SPEC, Order(Goal(asked=0.99), round_to=64))
    lower, finer = re.findall(r"reduce_macs to ([0-9.]+),|round_to = 1 \(at most ([0-9.]+)\)", str(seen.value))
    for most, round_to in ((float(lower[0]), 64), (float(finer[1]), 1)):
        assert prune_heads(model, SPEC, Order(Goal(asked=most), round_to=round_to))[1].reduction == pytest.approx(
            most, abs=0.002
        )


@pytest.mark.parametrize("name", ["transformer", "efficient_transformer"])
@pytest.mark.parametrize("layer", ["query", "key", "value", "out"])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_the_strongest_heads_stay_whichever_layer_makes_them_strong(name: str, layer: str, scale: float) -> None:
    model = network(name)
    attentions = [m for m in model.modules() if isinstance(m, Attention)]
    strong = [{1, 3}, {0, 2}]  # of each layer's four heads, by two of four
    with torch.no_grad():
        for attention, heads in zip(attentions, strong, strict=True):
            for linear in (attention.query, attention.key, attention.value, attention.out):
                linear.weight.mul_(scale)
            weight = getattr(attention, layer).weight
            parts = weight.view(4, 8, -1) if layer != "out" else weight.view(-1, 4, 8)
            for head in heads:
                parts.select(0 if layer != "out" else 1, head).mul_(3)
    pruned, _ = prune_heads(model, SPEC, 0.45)
    after = [m for m in pruned.modules() if isinstance(m, Attention)]
    assert [m.heads for m in after] == [2, 2]
    for attention, smaller, heads in zip(attentions, after, strong, strict=True):
        rows = torch.cat([torch.arange(8 * h, 8 * h + 8) for h in sorted(heads)])
        for kind in ("query", "key", "value"):
            assert torch.equal(getattr(smaller, kind).weight, getattr(attention, kind).weight[rows])
            if getattr(attention, kind).bias is not None:
                assert torch.equal(getattr(smaller, kind).bias, getattr(attention, kind).bias[rows])
        assert torch.equal(smaller.out.weight, attention.out.weight[:, rows])


@pytest.mark.parametrize(
    ("name", "layer"), [("transformer", "up"), ("efficient_transformer", "gate"), ("transformer", "down")]
)
def test_the_strongest_hidden_channels_stay_whichever_layer_makes_them_strong(name: str, layer: str) -> None:
    model = network(name)
    forward = model.layers[0].feed_forward  # type: ignore[index,union-attr]
    hidden = forward.up.out_features
    strong = torch.arange(1, hidden, 2)
    with torch.no_grad():
        weight = getattr(forward, layer).weight
        weight[(slice(None), strong) if layer == "down" else strong] *= 4
    pruned, _ = prune_heads(model, SPEC, 0.45)
    smaller = pruned.layers[0].feed_forward  # type: ignore[index,union-attr]
    kept = smaller.up.out_features
    assert kept < hidden
    expected = forward.up.weight[strong]
    if kept <= len(strong):
        assert all((row == expected).all(1).any() for row in smaller.up.weight)
    else:
        assert all((row == smaller.up.weight).all(1).any() for row in expected)


def test_heads_go_one_layer_at_a_time() -> None:
    """A share that takes a head of one layer takes one of each; a smaller step is there, and is taken."""
    wide = build_model("transformer", {**ARGUMENTS, "depth": 4}, 3, SPEC).eval()
    pruned, report = prune_heads(wide, SPEC, Order(Goal(asked=0.1), round_to=128))
    assert 0.08 <= report.reduction <= 0.14
    assert sorted(m.heads for m in pruned.modules() if isinstance(m, Attention))[0] < 4


def test_a_latency_and_parameters_are_goals_of_heads_too() -> None:
    model = network("transformer")
    meter = Meter(lambda m: float(sum(p.numel() for p in m.parameters())), "a clock")
    size = meter.ms(model)
    timed = Order(Goal("max_latency_ms", 0.8 * size, "a clock"), grounds=Grounds(meter=meter))
    _, report = prune_heads(model, SPEC, timed)
    assert report.after == report.params_after <= 0.8 * size
    _, by_size = prune_heads(model, SPEC, Order(Goal("reduce_parameters", 0.2)))
    assert by_size.share == pytest.approx(0.2, abs=0.03)
    with pytest.raises(StageFailed, match=r"max_latency_ms is 5; with round_to = 8 at least .* raise prune\.max_lat"):
        prune_heads(model, SPEC, Order(Goal("max_latency_ms", 5.0, "a clock"), grounds=Grounds(meter=meter)))


def test_layers_that_are_alike_are_ranked_together() -> None:
    """The weak heads all lie in the first layer: one by one each layer loses as many, together the first loses more."""
    model = network("transformer")
    with torch.no_grad():
        for linear in (model.layers[0].attention.query, model.layers[0].attention.out):  # type: ignore[index,union-attr]
            linear.weight *= 0.01
    heads = {}
    for grouping in ("layer", "isomorphic"):
        pruned, _ = prune_heads(model, SPEC, Order(Goal(asked=0.25), grouping=grouping))  # type: ignore[arg-type]
        heads[grouping] = [m.heads for m in pruned.modules() if isinstance(m, Attention)]
    assert heads["layer"][0] == heads["layer"][1]
    assert heads["isomorphic"][0] < heads["isomorphic"][1]
