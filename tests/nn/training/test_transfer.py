from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlx_deploy.config import Teacher
from dlx_deploy.errors import ConfigError, EnvironmentMissing
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.pretrained import pretrained_state
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.batches import TrainData
from dlx_deploy.nn.training.classes import TOP1, supervised
from dlx_deploy.nn.training.compute import seed_all
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.loop import RunContext, train
from dlx_deploy.nn.training.optimizers import new_optimizer, set_rate
from dlx_deploy.nn.training.transfer import Transfer, freeze, layer_groups, load_with_new_head, rate_scales, transfer_of


def network(name: str, size: int = 32, classes: int = 10, **arguments: Any) -> nn.Module:
    return build_model(name, arguments, classes, ImageInput(3, size, size))


def tops(groups: list[list[str]]) -> list[str]:
    return [group[0] for group in groups]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ["fc", "layer4", "layer3", "layer2", "layer1", "conv1"]),
        ("resnet20", ["linear", "layer3", "layer2", "layer1", "conv1"]),
        ("vit", ["heads", *(f"encoder.layers.encoder_layer_{i}" for i in reversed(range(6))), "class_token"]),
        ("mobilenet_v3_small", ["classifier", *(f"features.{i}" for i in reversed(range(13)))]),
    ],
)
def test_groups_run_from_the_head_to_the_input(name: str, expected: list[str]) -> None:
    model = network(name)
    groups = layer_groups(model)
    assert len(groups) == len(expected)
    for group, prefix in zip(groups, expected, strict=True):
        assert group[0].startswith(prefix), groups
    assert sorted(n for group in groups for n in group) == sorted(n for n, _ in model.named_parameters())


def test_every_torchvision_network_has_a_head_of_its_classes() -> None:
    for name in (
        "efficientnet_b0",
        "densenet121",
        "swin_t",
        "convnext_tiny",
        "vgg11",
        "squeezenet1_0",
    ):
        with torch.device("meta"):
            model = build_model(name, {}, 7, ImageInput(3, 224, 224))
        head = layer_groups(model)[0]
        shapes = [dict(model.named_parameters())[n].shape[0] for n in head]
        assert 7 in shapes, (name, head)


def trainable(model: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}


def test_layers_unfreeze_on_schedule() -> None:
    model = network("resnet20")
    groups, transfer = layer_groups(model), Transfer((2, 4), frozen_groups=1)
    seen = []
    for epoch in range(6):
        model.train()
        freeze(model, groups, transfer, epoch)
        seen.append(trainable(model))
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                assert module.training == (name.split(".")[0] in trainable(model)), name
    expected = [{"linear"}] * 2 + [{"linear", "layer3"}] * 2 + [{"linear", "layer3", "layer2", "layer1"}] * 2
    assert seen == expected


def test_frozen_layers_keep_their_bits_and_statistics(train_data: TrainData) -> None:
    seed_all(0)
    model = build_model("resnet8", {"width": 0.5}, 10, ImageInput(1, 8, 8))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    settings = Teacher(epochs=2, batch_size=48, unfreeze_epochs=(1,), frozen_groups=2)
    train(model, train_data, settings, supervised(0.0), RunContext(transfer=transfer_of(settings)), Hooks(TOP1))
    after = model.state_dict()
    frozen = [k for k in before if k.startswith(("conv1", "bn1", "layer1")) and "num_batches" not in k]
    assert frozen
    assert all(torch.equal(before[k], after[k]) for k in frozen)
    assert not torch.equal(before["layer3.0.conv1.weight"], after["layer3.0.conv1.weight"])
    assert all(p.requires_grad for p in model.parameters())


def test_rates_fall_from_the_head_down() -> None:
    model = network("resnet20")
    scales = rate_scales(layer_groups(model), Transfer(layer_decay=0.5))
    optimizer = new_optimizer(model, Teacher(), scales)
    set_rate(optimizer, 0.8)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    factors = {name.split(".")[0]: rates[id(p)] for name, p in model.named_parameters()}
    assert factors == {"linear": 0.8, "layer3": 0.4, "layer2": 0.2, "layer1": 0.1, "conv1": 0.05, "bn1": 0.05}


def test_a_new_head_on_old_layers(tmp_path: Path) -> None:
    old, new = network("resnet18", classes=1000), network("resnet18", classes=5)
    head = new.fc.weight.detach().clone()  # type: ignore[union-attr]
    load_with_new_head(new, old.state_dict(), tmp_path)
    assert torch.equal(new.fc.weight, head)  # type: ignore[union-attr]
    assert torch.equal(new.layer1[0].conv1.weight, old.layer1[0].conv1.weight)  # type: ignore[union-attr,index]
    with pytest.raises(ConfigError, match="does not fit the model: layer1"):
        load_with_new_head(network("resnet50"), old.state_dict(), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unfreeze_epochs": (2, 1)}, r"teacher\.unfreeze_epochs is \[2, 1\] and teacher\.epochs is 4"),
        ({"unfreeze_epochs": (4,)}, r"must rise and be below teacher\.epochs"),
    ],
)
def test_a_schedule_longer_than_training(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        transfer_of(Teacher(epochs=4, **change))


def test_everything_frozen() -> None:
    model = network("resnet20")
    with pytest.raises(ConfigError, match=r"teacher\.frozen_groups is 5; the network has 5 layer groups and at least"):
        freeze(model, layer_groups(model), Transfer(frozen_groups=5), 0)


def test_pretrained_weights_come_from_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be downloaded, without the download."""
    own = network("resnet18", classes=1000).state_dict()
    state = {**own, "aux_classifier.0.weight": torch.zeros(3)}  # a second head, which is for training alone
    asked: list[str] = []

    def fetch(url: str, *args: Any, **options: Any) -> Any:
        asked.append(url)
        assert options["check_hash"]
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    origin, loaded = pretrained_state("resnet18", "IMAGENET1K_V1")
    assert loaded == own
    assert asked[0].endswith(origin.name)
    assert origin.suffix == ".pth"


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*args: Any, **options: Any) -> Any:
        raise error

    return fail


def test_pretrained_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", raising(OSError("no network")))
    with pytest.raises(EnvironmentMissing, match=r"cannot be fetched \(no network\); download it elsewhere"):
        pretrained_state("resnet18", "DEFAULT")
    with pytest.raises(ConfigError, match=r"teacher\.pretrained is 'IMAGENET'; nearest|did you mean|IMAGENET1K_V1"):
        pretrained_state("resnet18", "IMAGENET")
    with pytest.raises(ConfigError, match="'resnet20' has no weights in torchvision; give a file"):
        pretrained_state("resnet20", "DEFAULT")
