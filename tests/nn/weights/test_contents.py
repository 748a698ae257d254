"""What a checkpoint's file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.weights.contents import read_contents, taken_state


def state(classes: int = 3) -> dict[str, Any]:
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), *(nn.Conv2d(4, 4, 3) for _ in range(4)), nn.Linear(4, classes)]
    return nn.Sequential(*layers).state_dict()


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_every_network_is_found_and_what_a_build_takes(tmp_path: Path) -> None:
    content = {
        "state_dict": {f"model.{k}": v for k, v in state().items()},
        "ema": state(),
        "optimizer": torch.optim.Adam(nn.Linear(2, 2).parameters()).state_dict(),
        "epoch": 3,
        "class_to_idx": {"cat": 0, "dog": 1, "eel": 2},
    }
    path = saved(tmp_path / "x.ckpt", content)
    contents = read_contents(path)
    facts = contents.facts
    assert [(one.key, one.prefix, one.outputs, one.channels) for one in facts.states] == [
        ("state_dict", "model.", 3, 1),
        ("ema", "", 3, 1),
    ]
    assert facts.beside == ("optimizer", "epoch", "class_to_idx")
    assert facts.classes == ("cat", "dog", "eel")
    assert taken_state(contents, path) == ("ema", contents.shapes["ema"])


def test_student_and_teacher_in_one_state_dict_are_two(tmp_path: Path) -> None:
    both = {f"{who}.{k}": v for who in ("student", "teacher") for k, v in state().items()}
    facts = read_contents(saved(tmp_path / "x.pt", {"state_dict": both})).facts
    assert [one.key for one in facts.states] == ["student", "teacher"]
    assert facts.beside == ()


def test_values_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    broken = state()
    broken["0.weight"][0, 0, 0, :2] = torch.nan
    (one,) = read_contents(saved(tmp_path / "x.pt", broken)).facts.states
    assert (one.key, one.not_finite, one.parameters) == ("", 2, sum(v.numel() for v in broken.values()))


def test_no_network(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"lr": 0.1})
    contents = read_contents(path)
    assert contents.facts.states == ()
    with pytest.raises(ConfigError, match="must hold a state dict"):
        taken_state(contents, path)
