from __future__ import annotations

import argparse
import collections
import datetime
import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.weights.checkpoint import load_into, read_checkpoint


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
    loaded = read_checkpoint(tmp_path / "x.pth")
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[k], state[k]) for k in state)


def test_safetensors(tmp_path: Path) -> None:
    state = network().state_dict()
    save_file(prefixed(state, "module."), tmp_path / "x.safetensors")
    loaded = read_checkpoint(tmp_path / "x.safetensors")
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[k], state[k]) for k in state)


def test_a_prefix_of_some_names_stays(tmp_path: Path) -> None:
    torch.save({"module.weight": torch.ones(1), "bias": torch.ones(1)}, tmp_path / "x.pt")
    assert set(read_checkpoint(tmp_path / "x.pt")) == {"module.weight", "bias"}


class Ruin:
    """What would leave a file behind if its pickle were executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class Evaluated:
    def __reduce__(self) -> Any:
        return eval, ("1 + 1",)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Ruin, r"pathlib\.[\w.]*touch|getattr"),
        (lambda _: Evaluated(), "eval"),
        (lambda _: network(), r"torch\.nn\.[\w.]+"),
    ],
)
def test_a_pickle_that_would_run_code_is_refused(kind: Any, name: str, tmp_path: Path) -> None:
    torch.save({"args": kind(tmp_path / "ruined"), "state_dict": network().state_dict()}, tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=rf"its pickle asks for ({name}), which would execute .*re-save the weights"):
        read_checkpoint(tmp_path / "x.pth")
    assert not (tmp_path / "ruined").exists()


BESIDE = {
    "numpy": lambda: {"acc": np.float64(0.77), "n": np.int64(3), "curve": np.arange(3.0), "kind": np.dtype("f4")},
    "args": lambda: argparse.Namespace(lr=0.1, out=Path("runs"), sizes=[1, 2]),
    "types": lambda: SimpleNamespace(a=1),
    "dicts": lambda: collections.defaultdict(list, {"a": [1]}),
    "optimizer": lambda: torch.optim.SGD(network().parameters(), lr=0.1).state_dict(),
    "date": lambda: datetime.datetime(2026, 1, 1),
    "rng": torch.get_rng_state,
    "many": lambda: {"a": np.float32(1), "b": argparse.Namespace(p=Path("x")), "c": collections.deque([1])},
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("legacy", [False, True])
def test_what_lies_beside_the_weights_is_passed_over(beside: str, legacy: bool, tmp_path: Path) -> None:
    state = network().state_dict()
    content = {"epoch": 3, "extra": BESIDE[beside](), "state_dict": state}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    before = set(torch.serialization.get_safe_globals())
    loaded = read_checkpoint(tmp_path / "x.pth")
    assert all(torch.equal(loaded[k], state[k]) for k in state)
    assert set(torch.serialization.get_safe_globals()) == before


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
        ("x.pt", {"optimizer": {"state": {}}}, r"holds a dict with keys \['optimizer'\]"),
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
        "3.bias is [5] in the checkpoint and [3] in the model (2 of another shape, of 9 tensors); "
        "it tells 5 classes apart and the network 3: teacher.new_head = true keeps all but the last layer, or give "
        "data of the checkpoint's classes"
    )


def test_missing_and_left_over_tensors_are_named_up_to_five() -> None:
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(
        ConfigError, match=r"0\.weight is missing; .*; and 4 more \(7 missing, 1 not in the model, 1 of"
    ) as e:
        load_into(model, {"fc.weight": torch.ones(2, 2), "0.bias": torch.ones(9)}, Path("x.pt"))
    assert str(e.value).count(" is missing") == 5
    with pytest.raises(ConfigError, match=r"fc\.weight \[2, 2\] is not in the model \(1 not in the model, of 9"):
        load_into(model, {**before, "fc.weight": torch.ones(2, 2)}, Path("x.pt"))
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())


def prefixes(*names: str) -> Any:
    return lambda s: {k: v for p in names for k, v in prefixed(s, p).items()}


def wrapped_each(state: dict[str, Tensor], token: str) -> dict[str, Tensor]:
    return {k.replace(".", f".{token}", 1): v for k, v in state.items()}


FITTED = {
    "lightning": prefixes("model."),
    "net": prefixes("net."),
    "backbone": prefixes("backbone."),
    "deep": prefixes("module.encoder.trunk."),
    "lightning compiled": prefixes("model._orig_mod."),
    "lightning parallel": prefixes("model.module."),
    "parallel lightning": prefixes("module.model."),
    "compiled part": lambda s: wrapped_each(s, "_orig_mod."),
    "fsdp": lambda s: prefixed(wrapped_each(s, "_fsdp_wrapped_module."), "_fsdp_wrapped_module."),
    "checkpointed": lambda s: prefixed(wrapped_each(s, "_checkpoint_wrapped_module."), "model."),
    "loss": lambda s: {**prefixed(s, "model."), "criterion.weight": torch.ones(10)},
    "second head": lambda s: {**s, "aux_classifier.4.weight": torch.ones(21, 3)},
    "plain loss": lambda s: {**s, "criterion.weight": torch.ones(10)},
    "projector": lambda s: {**prefixed(s, "encoder."), "projector.0.weight": torch.ones(2, 2), "queue": torch.ones(3)},
    "averaged": lambda s: {**prefixed(s, "module."), "n_averaged": torch.tensor(5)},
    "thop": lambda s: {**s, "total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)},
    "ema beside": lambda s: {**prefixed({k: v + 1 for k, v in s.items()}, "model."), **prefixed(s, "ema_model.")},
    "deepspeed": lambda s: {"module": s, "ds_version": "0.15", "optimizer": None},
    "ema": lambda s: {"model": {k: v + 1 for k, v in s.items()}, "ema": s},
    "ema state dict": lambda s: {"state_dict": {k: v + 1 for k, v in s.items()}, "state_dict_ema": s, "epoch": 1},
    "ema module": lambda s: {"model": {k: v + 1 for k, v in s.items()}, "model_ema": {"module": s, "decay": 0.9}},
    "student": lambda s: {"student": s, "optimizer": {"state": {}}},
    "one unknown": lambda s: {"my_weights": s, "step": 3},
    "scalars": lambda s: {**s, "epoch": 3, "best_acc": 0.5},
    "half": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    "bfloat": lambda s: {"state_dict": {k: v.bfloat16() if v.is_floating_point() else v for k, v in s.items()}},
    "parameters": lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
}


@pytest.mark.parametrize("kind", FITTED)
def test_names_are_fitted_to_the_network(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, target = network(), network()
    with torch.no_grad():
        for tensor in (*source.parameters(), source[1].running_mean):
            tensor.copy_(torch.randint(-8, 8, tensor.shape))  # half precision holds them
    path = tmp_path / "x.PTH.tar"
    torch.save(FITTED[kind](source.state_dict()), path)
    load_into(target, read_checkpoint(path), path)
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())


def test_what_was_taken_and_what_was_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state, path = network().state_dict(), tmp_path / "x.pt"

    def told(content: Any) -> str:
        torch.save(content, path)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load_into(network(), read_checkpoint(path), path)
        return caplog.text

    assert "holds state dicts under ema, model; took ema (checkpoint_key)" in told({"model": state, "ema": state})
    beside = {**prefixed(state, "model."), **prefixed(state, "ema_model.")}
    assert "holds networks under model., ema_model.; took ema_model. (checkpoint_key)" in told(beside)
    assert "1 of 10 tensors left out: criterion.weight" in told({**state, "criterion.weight": torch.ones(3)})
    assert "left out what is no tensor: epoch" in told({**state, "epoch": 3})
    assert not told(prefixed(state, "model."))


def test_a_key_chooses(tmp_path: Path) -> None:
    good = network().state_dict()
    bad, path = {k: v + 1 for k, v in good.items()}, tmp_path / "x.pt"
    for content, key in (
        ({"model": good, "ema": bad}, "model"),
        ({"student": bad, "teacher": {"state_dict": prefixed(good, "module.")}}, "teacher"),
        ({"state_dict": {**prefixed(good, "teacher."), **prefixed(bad, "student.")}}, "teacher"),
        ({**prefixed(good, "a.b."), **prefixed(bad, "c.")}, "a.b"),
    ):
        torch.save(content, path)
        target = network()
        load_into(target, read_checkpoint(path, key), path)
        assert all(torch.equal(v, good[k]) for k, v in target.state_dict().items())
    torch.save({"model": good}, path)
    with pytest.raises(ConfigError, match=r"checkpoint_key is 'nobody'; it must be a key of the file .*: 0, 1, 3$"):
        read_checkpoint(path, "nobody")
    torch.save({"student": good, "teacher": bad}, path)
    with pytest.raises(ConfigError, match=r"holds several state dicts: student, teacher; set teacher\.checkpoint_key"):
        read_checkpoint(path)
    state = {**prefixed(good, "student."), **prefixed(bad, "teacher.")}
    with pytest.raises(ConfigError, match=r"holds 2 networks that fit, under student\., teacher\.; set teacher\.check"):
        load_into(network(), state, path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value: float) -> None:
    state = {k: v.clone() for k, v in network().state_dict().items()}
    state["1.running_var"][2] = value
    with pytest.raises(
        ConfigError, match=r"x\.pt: 1\.running_var has 1 of 4 values that are NaN or infinite; its training"
    ):
        load_into(network(), state, Path("x.pt"))


def test_a_buffer_that_is_infinite_by_design_is_no_fault() -> None:
    model = network()
    model.register_buffer("mask", torch.full((2,), -math.inf))
    load_into(model, dict(model.state_dict()), Path("x.pt"))


def test_quantized_weights_are_refused_by_name() -> None:
    state = {**network().state_dict(), "3.weight": torch.ones(3, 4, dtype=torch.int8)}
    with pytest.raises(ConfigError, match=r"3\.weight is int8 and float32 in the model; .*before quantization"):
        load_into(network(), state, Path("x.pt"))


def test_names_with_and_without_a_wrapper() -> None:
    state = network().state_dict()
    with pytest.raises(ConfigError, match="has names both with and without _orig_mod"):
        load_into(network(), {**state, **prefixed(state, "_orig_mod.")}, Path("x.pt"))


def test_a_network_that_ours_wraps() -> None:
    inner = network()
    wrapper = nn.ModuleDict({"network": network()})
    load_into(wrapper, inner.state_dict(), Path("x.pt"))
    assert all(torch.equal(v, inner.state_dict()[k]) for k, v in wrapper["network"].state_dict().items())


def test_a_torchscript_archive(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(network().eval(), torch.zeros(1, 1, 3, 3)), tmp_path / "x.pt")
    with pytest.raises(
        ConfigError, match=r"is a TorchScript archive, a program .*torch\.jit\.load\(FILE\)\.state_dict"
    ):
        read_checkpoint(tmp_path / "x.pt")


def test_versions_of_a_checkpoint_are_those_that_wrote_it(tmp_path: Path) -> None:
    class Scale(nn.Linear):
        _version = 1

        def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
            if metadata.get("version") != self._version:
                state[prefix + "bias"] = state[prefix + "bias"] + 100
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    def made(version: int) -> nn.Module:
        Scale._version = version
        return nn.Sequential(nn.Linear(3, 3), Scale(3, 3))

    old = made(1)
    torch.save({"state_dict": nn.ModuleDict({"module": nn.ModuleDict({"model": old})}).state_dict()}, tmp_path / "x.pt")
    for content, moved in ((None, 100.0), ({**old.state_dict()}, 0.0)):
        if content is not None:  # a plain dict has no versions: those of today are taken
            torch.save(content, tmp_path / "x.pt")
        new = made(2)
        load_into(new, read_checkpoint(tmp_path / "x.pt"), tmp_path / "x.pt")
        assert torch.equal(new[1].bias, old[1].bias + moved)
