from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.checkpoint import load_into, read_checkpoint


def network(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + k: v for k, v in state.items()}


WRAPPINGS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "best_prec1": 91.7, "epoch": 3},
    "model": lambda s: {"model": s},
    "model_state_dict": lambda s: {"optimizer": {"state": {}}, "model_state_dict": s},
    "net": lambda s: {"net": s},
    "ema": lambda s: {"ema": s},
    "nested": lambda s: {"model": {"state_dict": s}},
    "parallel": lambda s: {"state_dict": prefixed(s, "module.")},
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "both": lambda s: prefixed(s, "module._orig_mod."),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappers_and_prefixes_come_off(tmp_path: Path, wrapping: str) -> None:
    state = network().state_dict()
    torch.save(WRAPPINGS[wrapping](state), tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth")
    assert list(found) == list(state)
    assert all(torch.equal(found[k], state[k]) for k in state)


def test_safetensors(tmp_path: Path) -> None:
    state = network().state_dict()
    save_file(prefixed(state, "module."), tmp_path / "x.safetensors")
    found = read_checkpoint(tmp_path / "x.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[k], state[k]) for k in state)


def test_a_prefix_of_some_names_stays(tmp_path: Path) -> None:
    torch.save({"module.weight": torch.ones(1), "bias": torch.ones(1)}, tmp_path / "x.pt")
    assert set(read_checkpoint(tmp_path / "x.pt")) == {"module.weight", "bias"}


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1), "state_dict": {}}, tmp_path / "x.pth")
    with pytest.raises(
        ConfigError, match=r"its pickle asks for argparse\.Namespace, which would .*re-save the weights"
    ):
        read_checkpoint(tmp_path / "x.pth")


def write(path: Path, content: Any) -> None:
    torch.save(content, path) if not isinstance(content, bytes) else path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pt", {"lr": 0.1, "epoch": 3}, r"holds a dict with keys \['lr', 'epoch'\]; it must hold a state dict"),
        ("x.pt", torch.ones(2), r"holds a Tensor; it must hold a state dict"),
        ("x.pt", {}, r"holds a dict with keys \[\]"),
        ("x.pt", b"", r"no valid torch checkpoint"),
        ("x.pt", b"not a checkpoint at all", r"no valid torch checkpoint"),
        ("x.pth", b"PK\x03\x04 cut", r"no valid torch checkpoint"),
        ("x.safetensors", b"\x10\0\0\0\0\0\0\0{}", r"no valid safetensors file"),
        ("x.onnx", b"", r"suffix '\.onnx' is no checkpoint's; must be \.safetensors or"),
    ],
)
def test_no_checkpoint(tmp_path: Path, name: str, content: Any, message: str) -> None:
    write(tmp_path / name, content)
    with pytest.raises(ConfigError, match=rf"{name}: {message}"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: cannot be read \(.*No such file"):
        read_checkpoint(tmp_path / name)


def test_loading_sets_every_tensor() -> None:
    torch.manual_seed(1)
    source, target = network(), network()
    state = source.state_dict()
    state.pop("1.num_batches_tracked")  # older checkpoints lack it
    load_into(target, {k: v.double() for k, v in state.items()}, Path("x.pt"))
    assert all(torch.equal(target.state_dict()[k], v) for k, v in source.state_dict().items())


def test_another_number_of_classes_is_named() -> None:
    with pytest.raises(ConfigError) as e:
        load_into(network(3), network(5).state_dict(), Path("big.pt"))
    assert str(e.value) == (
        "big.pt: does not fit the model: 3.weight is [5, 4] in the checkpoint and [3, 4] in the model; "
        "3.bias is [5] in the checkpoint and [3] in the model (2 of 9 tensors); "
        "check model, arguments and the number of classes"
    )


def test_missing_and_left_over_tensors_are_named_up_to_five() -> None:
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"0\.weight is missing; .*; and 4 more \(9 of 9 tensors\)") as e:
        load_into(model, {"fc.weight": torch.ones(2, 2), "0.bias": torch.ones(9)}, Path("x.pt"))
    assert str(e.value).count(" is missing") == 5
    with pytest.raises(ConfigError, match=r"fc\.weight \[2, 2\] is not in the model \(1 of 9"):
        load_into(model, {**before, "fc.weight": torch.ones(2, 2)}, Path("x.pt"))
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
