"""examples/cifar10/resnet20.py: the public checkpoints' network, prunable, exportable, on its own."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dlx_deploy.config import Config, load_config
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model, check_output
from dlx_deploy.nn.pruning.channels import prune_channels
from dlx_deploy.nn.weights.checkpoint import load_into, read_checkpoint

from ..arrays import check_parity, class_logits, image_spec

CIFAR10 = Path(__file__).parents[2] / "examples" / "cifar10"
SOURCE = CIFAR10 / "resnet20.py"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def resnet20(seed: int = 0, **arguments: Any) -> nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return build_model(f"{SOURCE}:resnet20", arguments, classes=10, spec=ImageInput(3, 32, 32)).eval()


def logits(model: nn.Module) -> torch.Tensor:
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        result: torch.Tensor = model(images)
    return result


def test_size_of_the_paper() -> None:
    model = resnet20()
    assert sum(p.numel() for p in model.parameters()) == 269_722
    check_output(model, class_logits(10), spec=ImageInput(3, 32, 32))


def test_half_width_and_grey() -> None:
    model = build_model(f"{SOURCE}:resnet20", {"width": 0.5}, classes=4, spec=ImageInput(1, 28, 28))
    check_output(model, class_logits(4), spec=ImageInput(1, 28, 28))
    assert 269_722 / sum(p.numel() for p in model.parameters()) == pytest.approx(4, rel=0.02)


def test_a_width_without_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"width is 0\.01; it must leave the first stage at least one of its 16"):
        resnet20(width=0.01)


def test_shortcut_takes_every_second_pixel_and_pads_with_zeros_on_both_sides() -> None:
    block = resnet20().get_submodule("layer2.0")
    nn.init.zeros_(block.get_parameter("bn2.weight"))  # with zero bias, too: the branch is silent
    x = torch.rand(2, 16, 8, 8)
    with torch.no_grad():
        out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_takes_a_wrapped_and_prefixed_checkpoint(tmp_path: Path) -> None:
    given = resnet20(seed=1)
    path = tmp_path / "published.th"
    state = {f"module.{k}": v for k, v in given.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save({"state_dict": state, "best_prec1": 91.73}, path)
    model = resnet20(seed=2)
    assert not torch.equal(logits(model), logits(given))
    load_into(model, read_checkpoint(path), path)
    assert torch.equal(logits(model), logits(given))


def test_parameter_names_are_those_of_the_public_checkpoints() -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
    expected = {"conv1.weight", "linear.weight", "linear.bias", *(f"bn1.{k}" for k in norm)}
    expected |= {f"{block}.conv{i}.weight" for block in blocks for i in (1, 2)}
    expected |= {f"{block}.bn{i}.{k}" for block in blocks for i in (1, 2) for k in norm}
    assert set(resnet20().state_dict()) == expected


@pytest.mark.parametrize("opset", [17, 20])
def test_exports_and_agrees_with_torch(tmp_path: Path, opset: int) -> None:
    model, path = resnet20(), tmp_path / "model.onnx"
    spec = image_spec(height=32, width=32, channels=3, opset=opset, **IMAGENET)
    export_onnx(model, path, spec)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    report = check_parity(path, model, spec, images, 1e-4)
    assert not report.vacuous
    assert [entry.version for entry in onnx.load(path).opset_import if entry.domain == ""] == [opset]


def test_inner_channels_can_be_pruned_and_the_trunk_stays() -> None:
    model = resnet20()
    pruned, report = prune_channels(model, (2, 3, 32, 32), 0.3)
    assert report.reduction >= 0.28
    inner = {name for name in report.channels if name.endswith("conv1")}
    assert {f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)} == inner
    widths = [pruned.get_submodule(f"layer{stage}.2.conv2").out_channels for stage in (1, 2, 3)]
    assert widths == [16, 32, 64]
    assert logits(pruned).shape == (4, 10)


def test_file_travels_alone() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) if node.level == 0}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names) == {"torch"}


@pytest.mark.parametrize("path", sorted(CIFAR10.glob("*.toml")), ids=lambda path: path.stem)
def test_every_configuration_is_valid(path: Path) -> None:
    config = load_config(path, ["data.path=/images"])
    assert config != Config()
    assert config.data.path == "/images"
    assert Path(config.teacher.model.rpartition(":")[0]) == SOURCE
    assert Path(config.teacher.checkpoint).parent == path.parent
    # Wrong normalisation costs a checkpoint its accuracy without any error.
    assert (config.data.mean, config.data.std) == (IMAGENET["mean"], IMAGENET["std"])


def test_the_configurations_are_found() -> None:
    assert {"from-checkpoint", "original-checkpoint"} <= {path.stem for path in CIFAR10.glob("*.toml")}
