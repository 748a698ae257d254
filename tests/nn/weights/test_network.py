from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from torch import nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.weights.network import (
    Architecture,
    Channels,
    build,
    channel_counts,
    load_model,
    portable,
    resize,
    save_model,
)

RESNET8 = Architecture(model="resnet8", classes=4, input=ImageInput(1, 8, 8), arguments={"width": 0.5})


def network(architecture: Architecture = RESNET8) -> nn.Module:
    torch.manual_seed(3)
    model = build(architecture)
    for p in model.parameters():
        nn.init.normal_(p)
    return model.eval()


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_round_trip_gives_the_same_bits(tmp_path: Path) -> None:
    model, images = network(), torch.randn(3, 1, 8, 8)
    save_model(tmp_path, model, RESNET8)
    loaded, architecture = load_model(tmp_path)
    assert architecture == RESNET8
    assert not loaded.training
    assert torch.equal(loaded(images), model(images))


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    model = network()
    save_model(tmp_path / "a", model, RESNET8)
    model.to(memory_format=torch.channels_last)
    save_model(tmp_path / "b", model, replace(RESNET8, arguments=dict(reversed(RESNET8.arguments.items()))))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert set(digests(tmp_path / "a")) == {"architecture.json", "weights.safetensors"}
    text = (tmp_path / "a" / "architecture.json").read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    assert json.loads(text) == {
        "schema": 5,
        "model": "resnet8",
        "arguments": {"width": 0.5},
        "classes": 4,
        "input": {"type": "image", "channels": 1, "height": 8, "width": 8},
        "pruned": {},
        "heads": {},
        "split": [],
        "source_sha256": None,
    }


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    save_model(tmp_path, network(), RESNET8)
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    load_model(tmp_path)
    assert torch.equal(torch.randn(3), expected)


def test_shared_tensors_are_written_out(tmp_path: Path) -> None:
    shared = nn.Linear(2, 2)
    state = portable({"b": shared.weight, "a": shared.weight[:1].T})
    assert list(state) == ["a", "b"]
    assert state["a"].is_contiguous()
    assert state["a"].data_ptr() != state["b"].data_ptr() != shared.weight.data_ptr()


def test_pruned_layers_are_rebuilt(tmp_path: Path) -> None:
    pruned = {
        "layer1.0.conv1": Channels(inputs=8, outputs=5),
        "layer1.0.bn1": Channels(inputs=5, outputs=5),
        "layer1.0.conv2": Channels(inputs=5, outputs=8),
    }
    architecture = replace(RESNET8, pruned=pruned)
    model = network(architecture)
    assert {k: v for k, v in channel_counts(model).items() if v != channel_counts(network())[k]} == pruned
    save_model(tmp_path, model, architecture)
    loaded, read = load_model(tmp_path)
    images = torch.randn(2, 1, 8, 8)
    assert read.pruned == pruned
    assert json.loads((tmp_path / "architecture.json").read_text())["pruned"]["layer1.0.conv1"] == {
        "in": 8,
        "out": 5,
        "groups": 1,
    }
    assert torch.equal(loaded(images), model(images))


def test_resizing_keeps_biases_groups_and_frozen_parameters() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8, 3, bias=False))
    model[0].weight.requires_grad_(False)
    resize(model, {"0": Channels(inputs=4, outputs=4, groups=4), "1": Channels(inputs=4, outputs=2)})
    assert model[0](torch.zeros(1, 4, 5, 5)).shape == (1, 4, 3, 3)
    assert (model[0].bias.shape, model[0].weight.requires_grad) == ((4,), False)
    assert model[1](torch.zeros(1, 4)).shape == (1, 2)
    assert model[1].bias is None
    with pytest.raises(ConfigError, match=r"pruned module 'conv9' is not in the model"):
        resize(model, {"conv9": Channels(inputs=1, outputs=1)})


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "net.py"
    path.parent.mkdir()
    path.write_text(
        "from torch import nn\n"
        "def make(num_classes, in_channels):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))\n"
    )
    return path


def test_a_users_file_travels_with_its_weights(tmp_path: Path, user_file: Path) -> None:
    architecture = Architecture(model=f"{user_file}:make", classes=4, input=ImageInput(1, 8, 8))
    model, images = network(architecture), torch.randn(2, 1, 8, 8)
    save_model(tmp_path / "first", model, architecture)
    source = user_file.read_bytes()
    user_file.unlink()
    loaded, read = load_model((tmp_path / "first").rename(tmp_path / "moved"))
    save_model(tmp_path / "again", loaded, read)
    assert torch.equal(load_model(tmp_path / "again")[0](images), model(images))
    assert digests(tmp_path / "again") == digests(tmp_path / "moved")
    stored = json.loads((tmp_path / "again" / "architecture.json").read_text())
    assert stored["model"] == "model.py:make"
    assert stored["source_sha256"] == hashlib.sha256(source).hexdigest()
    (tmp_path / "again" / "model.py").write_bytes(source + b"#")
    with pytest.raises(ConfigError, match=r"model\.py: sha256 is .*the copy is damaged"):
        load_model(tmp_path / "again")


def test_a_missing_source_is_named(tmp_path: Path, user_file: Path) -> None:
    architecture = Architecture(model=f"{user_file}:make", classes=4, input=ImageInput(1, 8, 8))
    model = network(architecture)
    user_file.unlink()
    with pytest.raises(ConfigError, match=r"net\.py: cannot be read .*needs a copy of it"):
        save_model(tmp_path / "out", model, architecture)


def test_damaged_artifacts_are_named(tmp_path: Path) -> None:
    save_model(tmp_path, network(), RESNET8)
    path = tmp_path / "architecture.json"
    good = json.loads(path.read_text())
    for change, message in (
        ({"schema": 6}, r"schema is 6; this version reads up to 5; use a newer dlx-deploy"),
        ({"colour": 1}, r"not an architecture \(.*colour"),
        (
            {"classes": 5},
            r"weights\.safetensors: does not fit the model: linear\.weight is \[4, 32\] in the checkpoint",
        ),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(ConfigError, match=message):
            load_model(tmp_path)
    path.write_text(json.dumps(good))
    (tmp_path / "weights.safetensors").write_bytes(b"cut")
    with pytest.raises(ConfigError, match=r"weights\.safetensors: cannot be read .*damaged"):
        load_model(tmp_path)
    with pytest.raises(ConfigError, match=r"no model artifact"):
        load_model(tmp_path / "nowhere")
