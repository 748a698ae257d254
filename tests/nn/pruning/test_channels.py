from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlx_deploy.config import Teacher
from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.pruning.channels import prune_channels, recalibrate_batchnorm
from dlx_deploy.nn.pruning.costs import count_macs
from dlx_deploy.nn.pruning.order import Goal, Grounds, Meter, Order
from dlx_deploy.nn.training.augment import Normalise
from dlx_deploy.nn.training.classes import TOP1, supervised
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.loop import RunContext, TrainData, evaluate, train
from dlx_deploy.nn.weights.network import Architecture, Channels, load_model, save_model

SHAPES = {"resnet8": (1, 3, 8, 8), "mobilenet_v3_small": (1, 3, 32, 32), "resnext50_32x4d": (1, 3, 32, 32)}


def network(name: str, **arguments: Any) -> nn.Module:
    _, channels, height, width = SHAPES[name]
    return build_model(name, arguments, 10, ImageInput(channels, height, width)).eval()


def test_macs_are_those_of_the_layers() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 36, 5)
    )
    assert count_macs(model, torch.zeros(1, 3, 8, 8)) == 8 * 3 * 9 * 64 + 8 * 9 * 36 + 8 * 36 * 5


@pytest.mark.parametrize(
    ("name", "arguments", "wanted", "round_to", "keep_trunk"),
    [
        ("resnet8", {"width": 2}, 0.3, 8, True),
        ("resnet8", {"width": 2}, 0.5, 4, False),
        ("resnet8", {"width": 2, "shortcut": "A"}, 0.3, 8, True),
        ("resnet8", {"width": 2, "shortcut": "A"}, 0.3, 8, False),
        ("mobilenet_v3_small", {}, 0.4, 8, False),
        ("resnext50_32x4d", {"layers": [1, 1, 1, 1]}, 0.3, 8, True),
    ],
)
def test_channels_are_really_gone(
    name: str, arguments: dict[str, Any], wanted: float, round_to: int, keep_trunk: bool
) -> None:
    if "layers" in arguments:
        from torchvision.models.resnet import Bottleneck, ResNet

        model: nn.Module = ResNet(Bottleneck, arguments["layers"], 10, groups=32, width_per_group=4).eval()
    else:
        model = network(name, **arguments)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    pruned, report = prune_channels(model, SHAPES[name], Order(Goal(asked=wanted), round_to, keep_trunk))
    assert wanted - 0.02 <= report.reduction <= wanted + 0.15
    assert report.macs_before == count_macs(model, torch.zeros(1, *SHAPES[name][1:]))
    assert report.macs_after == count_macs(pruned, torch.zeros(1, *SHAPES[name][1:]))
    assert report.params_after == sum(p.numel() for p in pruned.parameters()) < report.params_before
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    assert pruned(torch.randn(2, *SHAPES[name][1:])).shape == (2, 10)
    for key, channels in report.channels.items():
        assert isinstance(channels, Channels)
        if channels.outputs != dict(model.named_modules())[key].weight.shape[0]:
            assert channels.outputs % round_to == 0


def trunk_of(model: nn.Module) -> dict[str, int]:
    return {
        n: m.out_channels for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and not n.endswith("0.conv1")
    }


def test_the_trunk_is_kept_by_structure_not_by_name() -> None:
    model = network("resnet8", width=2)
    pruned, report = prune_channels(model, SHAPES["resnet8"], 0.4)
    assert trunk_of(pruned) == trunk_of(model)
    assert set(report.channels) == {f"layer{i}.0.{n}" for i in (1, 2, 3) for n in ("conv1", "bn1", "conv2")}

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 64, 1), nn.Conv2d(64, 32, 1)
            self.gate, self.head = nn.Conv2d(32, 64, 1), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            x = x + self.c(self.b(x).relu() * self.gate(x).sigmoid())  # a product ties b and gate: no trunk
            out: Tensor = self.head(x.mean((2, 3)))
            return out

    _, report = prune_channels(Block(), (1, 3, 8, 8), 0.3)
    assert {k: v.outputs for k, v in report.channels.items()} == {"b": 40, "gate": 40, "c": 32}


def test_a_classifier_behind_a_convolution_is_left_alone() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    pruned, report = prune_channels(model, (1, 3, 8, 8), 0.45)
    assert {k: v.outputs for k, v in report.channels.items()} == {"0": 16, "2": 16}
    assert pruned(torch.zeros(2, 3, 8, 8)).shape == (2, 16)


def test_normalised_trunks_are_left_alone() -> None:
    model = build_model("vit_b_16", {}, 10, ImageInput(3, 32, 32))
    model.encoder.layers = model.encoder.layers[:1]
    _, report = prune_channels(model, (1, 3, 32, 32), 0.15)
    attention = ("q_proj", "k_proj", "v_proj", "out_proj")
    parts = [*(f"self_attention.{part}" for part in attention), "mlp.0", "mlp.3"]
    assert set(report.channels) == {f"encoder.layers.encoder_layer_0.{part}" for part in parts}
    assert {now.outputs for now in report.channels.values()} >= {768}


def test_the_smallest_norms_go_first() -> None:
    model = nn.Sequential(nn.Conv2d(1, 16, 1, bias=False), nn.ReLU(), nn.Conv2d(16, 4, 1, bias=False), nn.Flatten())
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(1.0, 17.0).view(16, 1, 1, 1))
        model[2].weight.fill_(1.0)
    pruned, _ = prune_channels(model, (1, 1, 2, 2), 0.5)
    assert pruned[0].weight.flatten().tolist() == list(range(9, 17))


def test_norms_count_behind_a_batch_norm_without_weights() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 1, bias=False), nn.BatchNorm2d(16, affine=False), nn.Conv2d(16, 4, 1, bias=False), nn.Flatten()
    )
    with torch.no_grad():
        model[0].weight.copy_(1 + torch.arange(16.0).view(16, 1, 1, 1) / 1000)  # tells which stay
        model[2].weight.copy_(torch.arange(16.0, 0.0, -1.0).view(1, 16, 1, 1).expand(4, 16, 1, 1))
    pruned, _ = prune_channels(model, (1, 1, 2, 2), 0.5)
    assert torch.equal(pruned[0].weight, model[0].weight[:8])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("resnet8", {"width": 2}), ("resnet8", {"shortcut": "A"}), ("mobilenet_v3_small", {})],
)
def test_a_pruned_network_survives_the_artifact_bit_for_bit(
    name: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    model = network(name, **arguments)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    _, channels, height, width = SHAPES[name]
    pruned, report = prune_channels(model, SHAPES[name], 0.3)
    architecture = Architecture(
        model=name,
        arguments=arguments,
        classes=10,
        input=ImageInput(channels, height, width),
        pruned=report.channels,
    )
    save_model(tmp_path, pruned, architecture)
    loaded, _ = load_model(tmp_path)
    images = torch.randn(4, *SHAPES[name][1:])
    assert torch.equal(loaded(images), pruned(images))
    assert pruned(images).abs().max() > 1e-3


def test_pruning_is_deterministic() -> None:
    model = network("resnet8", width=2)
    first, again = (prune_channels(model, SHAPES["resnet8"], 0.4)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[k], again[k]) for k in first)


def test_nothing_to_remove_is_a_copy() -> None:
    model = network("resnet8")
    pruned, report = prune_channels(model, SHAPES["resnet8"], 0.0)
    assert (report.channels, report.reduction) == ({}, 0.0)
    assert pruned is not model


def test_too_much_says_how_much_can_be() -> None:
    with pytest.raises(
        StageFailed,
        match=r"prune\.reduce_macs is 0\.9; with round_to = 8, keep_trunk = true at most 0\.\d+ of the .* can be",
    ):
        prune_channels(network("resnet8"), SHAPES["resnet8"], 0.9)


def chain(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise((3, *widths)):
        layers += [nn.Conv2d(a, b, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 5))


def test_a_network_that_does_not_run_on_the_images() -> None:
    with pytest.raises(
        StageFailed, match=r"does not run on a batch of shape \[1, 4, 2, 2\] \(RuntimeError.*enabled = false"
    ):
        prune_channels(chain(16, 16), (1, 4, 2, 2), 0.5)


class Endless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 16, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        for _ in range(10**9):
            y = y + 0
        out: Tensor = self.head(y.mean((2, 3)))
        return out


def test_a_network_whose_channels_take_too_long_to_follow() -> None:
    with pytest.raises(
        StageFailed, match=r"within prune\.trace_seconds = 0\.2; the run had come to the network itself: raise prune"
    ):
        prune_channels(Endless(), (1, 3, 2, 2), Order(Goal(asked=0.5), trace_seconds=0.2))


def test_following_takes_as_many_runs_for_many_layers_as_for_few() -> None:
    runs = []
    for model in (chain(16, 16), chain(*[16] * 30)):
        count = [0]
        hook = torch.nn.modules.module.register_module_forward_hook(
            lambda module, *_, count=count: count.__setitem__(0, count[0] + isinstance(module, nn.Sequential))
        )
        try:
            prune_channels(model, (1, 3, 2, 2), 0.2)
        finally:
            hook.remove()
        runs.append(count[0])
    assert runs[0] == runs[1] < 20


def test_flattened_outputs_of_many_places() -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 28 * 28, 4)).eval()
    pruned, report = prune_channels(model, (1, 3, 28, 28), 0.5)
    stay = torch.isin(model[0].bias, pruned[0].bias)
    assert report.channels["3"].inputs == 32 * 28 * 28
    assert torch.equal(pruned[3].weight, model[3].weight[:, stay.repeat_interleave(28 * 28)])


def test_the_search_goes_one_group_at_a_time() -> None:
    """All layers are alike: a share that takes a step of one takes a step of all, and half of everything goes."""
    model = chain(*[16] * 12)
    _, report = prune_channels(model, (1, 3, 4, 4), 0.2)
    assert 0.18 <= report.reduction <= 0.25
    assert report.told() == f"{report.reduction:.3f} of the multiply-accumulates removed, 0.2 asked (prune.reduce_macs)"
    _, report = prune_channels(chain(16), (1, 3, 4, 4), 0.2)
    assert report.reduction == pytest.approx(0.5)
    assert report.told().endswith(
        "; the smallest step that reaches it takes more: a smaller prune.round_to has finer steps"
    )


def test_what_is_advised_helps() -> None:
    model = network("resnet8", width=2)
    with pytest.raises(StageFailed, match=r"at most") as seen:
        prune_channels(model, SHAPES["resnet8"], 0.97)
    said = str(seen.value)
    most = float(said.partition("lower prune.reduce_macs to ")[2].split(",")[0])
    assert prune_channels(model, SHAPES["resnet8"], most)[1].reduction == pytest.approx(most, abs=0.02)
    assert "or set prune.keep_trunk = false (at most 0.96" in said
    assert prune_channels(model, SHAPES["resnet8"], Order(Goal(asked=0.97), keep_trunk=False))[1].reduction >= 0.95
    with pytest.raises(StageFailed, match=r"at most 0\.\d+ of the") as seen:
        prune_channels(chain(16), (1, 3, 1, 1), Order(Goal(asked=0.99), round_to=1, keep_trunk=False))
    assert "or set" not in str(seen.value)


def test_a_network_of_which_nothing_can_go() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(
        StageFailed, match=r"at most 0\.000 .*: set prune\.enabled = false .* \('1': they are the network's outputs\)"
    ):
        prune_channels(model, (1, 3, 2, 2), 0.5)


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


def test_a_network_without_a_layer() -> None:
    with pytest.raises(StageFailed, match=r"at most 0\.000 .*: set prune\.enabled = false .* their channels: 0$"):
        prune_channels(Product(), (1, 3, 2, 2), 0.5)


@pytest.mark.parametrize("wanted", [0.0, 0.5])
def test_a_network_without_multiply_accumulates(wanted: float) -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.Flatten())
    with pytest.raises(
        StageFailed, match=r"no multiply-accumulates are counted in this Sequential .* set prune\.enabled = false"
    ):
        prune_channels(model, (1, 3, 2, 2), wanted)


def test_recalibration_takes_the_plain_average() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5))
    images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), dtype=np.uint8)
    normalise = Normalise((0.5,), (0.25,))
    model[1].running_mean.fill_(9.0)
    recalibrate_batchnorm(model, images, normalise, batch=16)
    with torch.no_grad():
        parts = [model[0](normalise(torch.from_numpy(images[i : i + 16]))) for i in range(0, 64, 16)]
    mean = torch.stack([p.mean((0, 2, 3)) for p in parts]).mean(0)
    variance = torch.stack([p.var((0, 2, 3)) for p in parts]).mean(0)
    assert model[1].running_mean.numpy() == pytest.approx(mean.numpy(), abs=1e-5)
    assert model[1].running_var.numpy() == pytest.approx(variance.numpy(), rel=1e-4)
    assert model[1].momentum == 0.1
    assert model.training


def test_recalibration_on_less_than_a_batch() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1))
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), dtype=np.uint8)
    recalibrate_batchnorm(model, images, Normalise((0.0,), (1.0,)), batch=16)
    assert model[0].running_mean.item() == pytest.approx(images.mean() / 255, rel=1e-5)


def test_recalibration_wins_accuracy_back(train_data: TrainData) -> None:
    model = build_model("resnet8", {"width": 2}, 10, ImageInput(1, 8, 8))
    train(model, train_data, Teacher(epochs=8, batch_size=32), supervised(0), RunContext(), Hooks(TOP1))
    feed = train_data.feed
    assert isinstance(feed, Normalise)
    pruned, _ = prune_channels(model, (1, 1, 8, 8), 0.6)
    before = evaluate(pruned, train_data.inputs, train_data.targets, feed, TOP1)
    recalibrate_batchnorm(pruned, train_data.inputs, feed)
    after = evaluate(pruned, train_data.inputs, train_data.targets, feed, TOP1)
    assert after > before + 0.02


def test_a_share_of_the_parameters_is_a_goal_too() -> None:
    model = network("resnet8", width=2)
    pruned, report = prune_channels(model, SHAPES["resnet8"], Order(Goal("reduce_parameters", 0.4)))
    share = 1 - sum(p.numel() for p in pruned.parameters()) / sum(p.numel() for p in model.parameters())
    assert share == pytest.approx(0.4, abs=0.05)
    assert report.after == report.params_after == sum(p.numel() for p in pruned.parameters())
    assert report.told().startswith(f"{share:.3f} of the parameters removed, 0.4 asked (prune.reduce_parameters)")
    with pytest.raises(
        StageFailed,
        match=r"prune\.reduce_parameters is 0\.97; .* at most 0\.\d+ of the parameters .*: lower prune\.reduce_p",
    ):
        prune_channels(model, SHAPES["resnet8"], Order(Goal("reduce_parameters", 0.97)))


def clock(asked: list[nn.Module]) -> Meter:
    """A millisecond for a channel."""

    def ms(model: nn.Module) -> float:
        asked.append(model)
        return float(sum(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)))

    return Meter(ms, "a clock")


def test_a_latency_is_a_goal_that_is_kept() -> None:
    model, asked = network("resnet8", width=2), list[nn.Module]()
    meter = clock(asked)
    before = meter.ms(model)
    order = Order(Goal("max_latency_ms", 0.75 * before, meter.basis), grounds=Grounds(meter=meter))
    pruned, report = prune_channels(model, SHAPES["resnet8"], order)
    assert 0.6 * before < meter.ms(pruned) == report.after <= 0.75 * before == 0.75 * report.before
    assert report.told().startswith(f"{report.after:.3g} of {before:.3g} ms are left, at most")
    assert len(asked) <= 12
    share = replace(order, goal=Goal("reduce_latency", 0.25, meter.basis))
    assert prune_channels(model, SHAPES["resnet8"], share)[1].after == report.after
    as_it_is = replace(order, goal=Goal("max_latency_ms", 2 * before, meter.basis))
    assert prune_channels(model, SHAPES["resnet8"], as_it_is)[1].after == before


def test_a_latency_that_cannot_be_reached_says_which_can() -> None:
    model, meter = network("resnet8", width=2), clock([])
    order = Order(Goal("max_latency_ms", 1.0, meter.basis), grounds=Grounds(meter=meter))
    with pytest.raises(
        StageFailed,
        match=r"max_latency_ms is 1; .* at least \d+ of \d+ ms stay \(a clock\): raise prune\.max_latency_ms to \d+",
    ) as seen:
        prune_channels(model, SHAPES["resnet8"], order)
    nearest = float(str(seen.value).partition("raise prune.max_latency_ms to ")[2].split(",")[0])
    reached = prune_channels(model, SHAPES["resnet8"], replace(order, goal=Goal("max_latency_ms", nearest, "a clock")))
    assert reached[1].after == nearest
