"""Checkpoints and networks as people look at them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.report.networks import view_checkpoint, view_network


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = build_model("resnet8", {"width": 2.0}, 10, ImageInput(1, 8, 8))
    torch.save({"state_dict": model.state_dict(), "epoch": 1}, tmp_path / "mine.pt")
    return tmp_path / "mine.pt"


def test_a_checkpoint_is_recognised_and_the_configuration_given(checkpoint: Path) -> None:
    told: list[tuple[float, float, str]] = []
    view = view_checkpoint(checkpoint, progress=lambda done, total, text="": told.append((done, total, text)))
    assert told[:2] == [(0, 0, "looking for the networks that it is likely of"), (0, 6, "resnet8 is compared")]
    assert "  resnet8 with width = 2.0 for 10 classes, images of 1 channels: every tensor fits\n" in view.text
    assert '  model = "resnet8"\n  arguments = { width = 2.0 }\n' in view.text
    assert "  [data]\n  channels = 1\n" in view.text
    assert view.data.likely[0].settings == {
        "teacher.model": "resnet8",
        "teacher.arguments.width": 2.0,
        "data.channels": 1,
    }


def test_a_checkpoint_is_compared_with_one_network(checkpoint: Path) -> None:
    text = view_checkpoint(checkpoint, "resnet20").text
    assert "compared with resnet20 with width = 2.0 for 10 classes" in text
    assert "the network has more: " in text
    with pytest.raises(ConfigError, match=r"--model 'resnt': no network .*dlx-deploy inspect MODEL"):
        view_checkpoint(checkpoint, "resnt")


def test_the_parts_of_a_network(tmp_path: Path) -> None:
    view = view_network("resnet8", {"width": 0.5}, 4, (1, 8))
    assert [part.modules[0] for part in view.parts] == ["linear", "layer3", "layer2", "layer1", "conv1"]
    model = build_model("resnet8", {"width": 0.5}, 4, ImageInput(1, 8, 8))
    assert view.parameters == sum(p.numel() for p in model.parameters())
    assert view.parts[0].macs == 32 * 4
    assert view.macs == sum(part.macs or 0 for part in view.parts)
    assert "teacher.frozen_groups: 0 to 4" in view.text


def test_a_file_of_the_user_has_parts_too(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(num_classes, in_channels):\n"
        "    last = nn.Linear(4, num_classes)\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)\n"
    )
    view = view_network(f"{tmp_path / 'net.py'}:make", {}, 5, (3, 8))
    assert (view.parameters, view.macs) == (4 * 27 + 4 + 25, 4 * 27 * 36 + 20)
