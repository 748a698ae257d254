"""What a network computes with beside its state dict is kept, or the network is refused by name."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dlx_deploy.config import Teacher
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.inputs import ImageInput, TokenInput
from dlx_deploy.nn.models.registry import build_model, check_output
from dlx_deploy.nn.training.batches import TrainData
from dlx_deploy.nn.training.classes import TOP1, supervised
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.loop import RunContext, train
from dlx_deploy.nn.weights.network import Architecture, build, load_model, refuse_unkeepable, save_model
from dlx_deploy.nn.weights.outside import leaves
from dlx_deploy.nn.weights.reload import refuse_other_answers

from ...arrays import class_logits

FILE = Path(__file__).with_name("kept_nets.py")
SPEC = ImageInput(1, 4, 4)
IMAGES = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(4))
KEPT = (
    "buffer", "attribute", "array", "number", "containers", "unregistered", "closure", "global", "bfloat", "tied",
    "extra", "extra_tensor", "lazy", "cache", "annealed",
)  # fmt: skip


def architecture(kind: str) -> Architecture:
    return Architecture(model=f"{FILE}:make", arguments={"kind": kind}, classes=3, input=SPEC)


def made(kind: str) -> nn.Module:
    model = build(architecture(kind))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def answers(model: nn.Module, images: Tensor = IMAGES) -> Tensor:
    with torch.no_grad():
        return model.eval()(images)


@pytest.mark.parametrize("kind", KEPT)
def test_a_network_answers_as_it_did(kind: str, tmp_path: Path) -> None:
    model = made(kind)
    check_output(model, class_logits(3), SPEC)
    if kind == "annealed":
        for _ in range(3):
            model.train()(IMAGES)
    before = answers(model)
    save_model(tmp_path, model, architecture(kind), IMAGES)
    assert torch.equal(answers(model), before)
    torch.manual_seed(77)
    loaded, _ = load_model(tmp_path)
    assert torch.equal(answers(loaded), before)
    again = tmp_path / "again"
    save_model(again, loaded, architecture(kind))
    assert torch.equal(answers(load_model(again)[0]), before)


def test_every_output_must_be_as_it_was(tmp_path: Path) -> None:
    model = made("several")
    images, logits = answers(model)
    save_model(tmp_path, model, architecture("several"), IMAGES)
    torch.testing.assert_close(answers(load_model(tmp_path)[0]), (images, logits), rtol=0, atol=0)
    model.register_forward_hook(lambda module, given, out: (out[0], out[1] + torch.rand(1)))
    with pytest.raises(ConfigError, match="gives two answers to the same input in evaluation mode"):
        save_model(tmp_path, model, architecture("several"), IMAGES)
    model.register_forward_hook(lambda module, given, out: {"logits": out[1]})
    with pytest.raises(ConfigError, match="the model gives a dict; it must give a tensor, or a tuple of tensors"):
        save_model(tmp_path, model, architecture("several"), IMAGES)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "filled_later",
            r"the model, built again and loaded, gives other answers, [\d.e+-]+ of the largest value apart; it "
            r"computes with what no state dict holds: body\.shift \(is float32\[4\], is built as None\); register it "
            r"with register_buffer, or make it in __init__ from the arguments alone",
        ),
        (
            "opaque",
            r"built again and loaded, gives other answers, .* apart; no attribute of its modules differs: it must not",
        ),
        ("stochastic", r"gives two answers to the same input in evaluation mode, .*dropout\(x, p, self\.training\)"),
        (
            "bad_extra",
            r"the model's body\._extra_state is \{'t': \{1, 2\}\}; extra state must be a tensor or what JSON",
        ),
        ("expanded", r"the network's body\.row cannot be set to float32\[4\]: .*; register it with register_buffer"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(kind: str, message: str, tmp_path: Path) -> None:
    model = made(kind)
    check_output(model, class_logits(3), SPEC)
    with pytest.raises(ConfigError, match=message):
        save_model(tmp_path, model, architecture(kind), IMAGES)
    with pytest.raises(ConfigError, match=message):
        refuse_unkeepable(model, architecture(kind))


def test_what_the_constructor_makes_alike_is_not_written(tmp_path: Path) -> None:
    plain = Architecture(model="resnet8", classes=3, input=SPEC)
    model = build(plain)
    save_model(tmp_path, model, plain)
    assert sorted(load_file(tmp_path / "weights.safetensors")) == sorted(model.state_dict())
    save_model(tmp_path, made("buffer"), architecture("buffer"))
    assert "~body.matrix" in load_file(tmp_path / "weights.safetensors")


def test_modes_and_random_state_are_left_as_they_were(tmp_path: Path) -> None:
    model = made("buffer").train()
    model.head.eval()
    before = torch.get_rng_state()
    save_model(tmp_path, model, architecture("buffer"))
    assert torch.equal(torch.get_rng_state(), before)
    assert (model.training, model.body.training, model.head.training) == (True, True, False)


def test_versions_of_modules_are_kept(tmp_path: Path) -> None:
    """torchvision's mnasnet reads its state dict by its version; so does batch normalisation."""
    spec = ImageInput(3, 32, 32)
    name = Architecture(model="mnasnet0_5", classes=4, input=spec)
    model = build_model("mnasnet0_5", {}, 4, spec)
    save_model(tmp_path, model, name)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(answers(load_model(tmp_path)[0], images), answers(model, images))


def test_an_older_version_of_a_module_is_migrated_by_torch(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    text = (
        "import torch\nfrom torch import nn\n"
        "class Scale(nn.Module):\n"
        "    _version = {version}\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.w = nn.Parameter(torch.full((3,), 2.0))\n"
        "    def _load_from_state_dict(self, state, prefix, metadata, *rest):\n"
        "        if metadata.get('version') != 2:\n"
        "            state[prefix + 'w'] = state[prefix + 'w'] * 100\n"
        "        super()._load_from_state_dict(state, prefix, metadata, *rest)\n"
        "    def forward(self, x):\n"
        "        return x.mean((1, 2, 3))[:, None] * self.w\n"
        "def make(num_classes):\n"
        "    return nn.Sequential(Scale())\n"
    )
    file.write_text(text.format(version=2))
    name = Architecture(model=f"{file}:make", classes=3, input=SPEC)
    save_model(tmp_path / "m", build(name), name)
    loaded = load_model(tmp_path / "m")[0]
    assert loaded.state_dict()["0.w"].tolist() == [2.0] * 3
    file.write_text(text.format(version=1))  # what it writes cannot be read as it was
    with pytest.raises(ConfigError, match="built again and loaded, gives other answers"):
        save_model(tmp_path / "m", build(name), name)


def test_a_layer_that_pruning_cannot_record_is_refused(tmp_path: Path) -> None:
    name = architecture("cache")
    model = made("cache")
    model.head.weight = nn.Parameter(torch.zeros(2, 4))
    with pytest.raises(ConfigError, match=r"head\.weight is \[2, 4\] in the checkpoint and \[3, 4\] in the model"):
        save_model(tmp_path, model, name)


@pytest.mark.parametrize(
    ("layer", "message"), [("x.sum((1, 2))", "lazy layers, and they do not take images"), ("0", "")]
)
def test_lazy_layers_without_a_size_are_refused(layer: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    body = f"self.layer({layer})" if message else "x.flatten(1)[:, :3] * 1.0"
    file.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.LazyConv2d(3, 3)\n"
        f"    def forward(self, x):\n        return {body}\n"
        "def make(num_classes):\n    return Net()\n"
    )
    message = message or r"the model's layer\.weight is lazy, and no forward pass reaches it; give it its size"
    with pytest.raises(ConfigError, match=message):
        build_model(f"{file}:make", {}, 3, SPEC)


def learned(data: TrainData, kind: str, folder: Path | None, epochs: int = 4, **options: Any) -> nn.Module:
    name = Architecture(model=f"{FILE}:make", arguments={"kind": kind}, classes=10, input=ImageInput(1, 8, 8))
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    model = build(name)
    model.stem = nn.Linear(64, 4)
    settings = Teacher(epochs=epochs, batch_size=96, **options)
    context = RunContext(folder, seed=3, progress=options.pop("progress", lambda *_: None))
    train(model, data, settings, supervised(0.1), context, Hooks(TOP1))
    return model


@pytest.mark.parametrize("kind", ["annealed", "extra", "extra_tensor", "buffer"])
@pytest.mark.parametrize("options", [{}, {"patience": 2}, {"ema_decay": 0.5}])
def test_training_resumes_with_all_of_it(kind: str, options: Any, train_data: TrainData, tmp_path: Path) -> None:
    unbroken = learned(train_data, kind, tmp_path, **options)
    for path in tmp_path.glob("epoch-00004.*"):
        path.unlink()
    resumed = learned(train_data, kind, tmp_path, **options)
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(answers(resumed, images), answers(unbroken, images))
    if kind == "annealed" and not options:
        assert resumed.body.t == unbroken.body.t < 1
        assert (resumed.body.seen, unbroken.body.seen) == (12, 12)


def test_the_noise_that_stands_for_samples() -> None:
    tokens = TokenInput(9, 7, 3).drawn(50)
    assert tokens.shape == (50, 7)
    assert tokens.min() >= 0
    assert tokens.max() <= 8
    real = (tokens != 3).sum(1)
    assert real.min() >= 1
    assert real.max() == 7
    assert all((row[:n] != 3).all() and (row[n:] == 3).all() for row, n in zip(tokens, real, strict=True))
    assert torch.equal(ImageInput(2, 3, 4).drawn(2), ImageInput(2, 3, 4).drawn(2))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_drawn_alike_by_chance_is_kept(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first build to compare with happens to draw the network's own permutation."""
    np.random.seed(seed)
    model = made("array")
    before = answers(model)
    np.random.seed(seed)
    save_model(tmp_path, model, architecture("array"), IMAGES)
    np.random.seed(seed + 100)
    loaded, _ = load_model(tmp_path)
    assert torch.equal(answers(loaded), before)


class Unsteady(nn.Module):
    """Its answers move by ``steps`` last bits, as where its weights lie otherwise in memory."""

    def __init__(self, steps: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.steps = nn.Linear(4, 3), steps
        self._is_accelerate_prepared = steps > 0  # Accelerate's own, and nothing is computed with it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x) + self.steps * torch.finfo(x.dtype).eps


def test_answers_that_rounding_moves_are_the_same_network(caplog: pytest.LogCaptureFixture) -> None:
    refuse_other_answers(Unsteady(0), Unsteady(1e5), torch.randn(5, 4), [])
    assert "rounding in float32 alone changes the model's answers by" in caplog.text
    other = Unsteady(1e5)
    other.head.bias.data += 0.1
    with pytest.raises(ConfigError, match="built again and loaded, gives other answers"):
        refuse_other_answers(Unsteady(0), other, torch.randn(5, 4), ["temperature"])
    assert not any("accelerate" in name for name in leaves(Unsteady(1)))


class Forgetful(Unsteady):
    """A copy of it loses what it computes with, as one built again does."""

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "steps": 0.0}


def test_what_a_copy_loses_as_well_is_not_taken_for_rounding() -> None:
    with pytest.raises(ConfigError, match=r"gives other answers, .*computes with what no state dict holds: steps"):
        refuse_other_answers(Forgetful(1e6), Forgetful(0), torch.randn(5, 4), ["steps"])
