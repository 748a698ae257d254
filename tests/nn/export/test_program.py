"""A torch.export program is the teacher: held against itself, refused where it is for training or would run code."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.foreign.shape import picture_in, usable_ends
from dlx_deploy.graph.foreign.usable import Picture
from dlx_deploy.graph.model import input_dims, load
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.export.foreign import check_adopted, check_rows, read_foreign

from .test_foreign import images, spec


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of batch 1, for one channel of 8 x 8 and ten classes."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(256, 10)
    )
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    torch.export.save(torch.export.export(net.eval(), (torch.zeros(1, 1, 8, 8),)), path)
    return path


def changed(program: Path, path: Path, change: Callable[[dict[str, Any]], None], extra: str = "") -> Path:
    """The program with another graph, and with one more file."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("models/model.json"):
                held = json.loads(content)
                change(held)
                content = json.dumps(held).encode()
            new.writestr(name, content)
        if extra:
            new.writestr(extra, b"x")
    return path


def test_it_answers_as_itself(program: Path) -> None:
    assert picture_in(program) == Picture(8, 8, 1)
    foreign = read_foreign(program, None, spec(), "")
    made = foreign.adopted(spec(), (), ())
    check_rows(made, spec(), 5)
    assert input_dims(load(made.model)) == {"images": (None, 8, 8, 1)}
    parity = check_adopted(made, spec(), Samples({"images": images(9)}), 1e-4)
    assert parity.max_abs_diff < 1e-5
    zeros = np.zeros((1, 1, 8, 8), np.float32)
    with torch.no_grad():
        expected = torch.export.load(program).module()(torch.from_numpy(zeros)).numpy()
    assert foreign.ask is not None, "the program itself is asked, not what was exported of it"
    np.testing.assert_array_equal(foreign.ask(zeros), expected)


def test_training_mode_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10)).train()
    torch.export.save(torch.export.export(net, (torch.zeros(2, 1, 8, 8),)), tmp_path / "net.pt2")
    with pytest.raises(ConfigError, match=r"was exported in training mode \(dropout.*\); call \.eval\(\)"):
        usable_ends(tmp_path / "net.pt2")


def _strange_size(held: dict[str, Any]) -> None:
    tensor = next(iter(held["graph_module"]["graph"]["tensor_values"].values()))
    tensor["sizes"] = [{"as_expr": {"expr_str": "__import__('os').system('true')", "hint": None}}]


def _half(held: dict[str, Any]) -> None:
    for spec_ in held["graph_module"]["signature"]["input_specs"]:
        if "user_input" in spec_:
            held["graph_module"]["graph"]["tensor_values"][spec_["user_input"]["arg"]["as_tensor"]["name"]]["dtype"] = 6


def _nothing(held: dict[str, Any]) -> None:
    del held["graph_module"]


def _same(held: dict[str, Any]) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "extra", "message"),
    [
        (_strange_size, "", r"a size is \"__import__.*\", which is no arithmetic"),
        (_half, "", r"reads .* float16\[1, 1, 8, 8\]; rule: images, float32"),
        (_nothing, "", r"no torch\.export program \('graph_module'\); save it with torch\.export\.save"),
        (_same, "net/data/constants/custom_obj_0", r"holds 'net/data/constants/custom_obj_0', an object or code"),
        (_same, "net/data/aotinductor/m/run.so", r"holds 'net/data/aotinductor/m/run\.so', an object or code"),
        (_same, "serialized_exported_program.json", r"was saved by a torch before 2\.8, whose archives are pickled"),
        (_same, "net/models/other.json", r"holds 2 programs; rule: one"),
    ],
)
def test_what_is_refused_unloaded(
    program: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], extra: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        usable_ends(changed(program, tmp_path / "net.pt2", change, extra))


def test_pickled_weights_are_refused(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name).replace(b'"use_pickle": false', b'"use_pickle": true ')
            new.writestr(name, content)
    with pytest.raises(ConfigError, match=r"holds 'weight_0', an object or code that torch would unpickle or run"):
        usable_ends(path)


def test_a_program_of_another_torch_says_so(program: Path, tmp_path: Path) -> None:
    def other(held: dict[str, Any]) -> None:
        held["schema_version"]["major"] += 1
        held["torch_version"] = "9.9.0"

    path = changed(program, tmp_path / "net.pt2", other)
    with pytest.raises(ConfigError, match=r"cannot load it, and torch 9\.9\.0 wrote it \(.*\); export it again with"):
        read_foreign(path, None, spec(), "")


@pytest.mark.parametrize(("content", "message"), [(b"PK nonsense", "no torch.export program"), (b"", "no torch.expor")])
def test_no_program(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "net.pt2").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        usable_ends(tmp_path / "net.pt2")
    with pytest.raises(ConfigError, match=r"gone\.pt2: cannot be read \(No such file"):
        usable_ends(tmp_path / "gone.pt2")


def test_a_plain_checkpoint_under_that_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(1)}, buffer)
    (tmp_path / "net.pt2").write_bytes(buffer.getvalue())
    with pytest.raises(ConfigError, match=r"holds 0 programs; rule: one; save it with torch\.export\.save"):
        usable_ends(tmp_path / "net.pt2")
