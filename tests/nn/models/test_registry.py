from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.families import model_names, torchvision_names
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model, check_output
from dlx_deploy.nn.models.resnet_cifar import DEPTHS, PadShortcut
from dlx_deploy.nn.models.scaling import scaled

from ...arrays import class_logits


def params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def cifar(name: str, **arguments: Any) -> nn.Module:
    return build_model(name, arguments, 10, ImageInput(3, 32, 32))


# He et al. 2015, table 6, in millions: 0.27, 0.46, 0.66, 0.85, 1.7; the exact counts are those of public option-A code.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
    ],
)
def test_published_parameter_counts(name: str, count: int) -> None:
    assert params(cifar(name, shortcut="A")) == count


def test_projections_add_two_convolutions_with_normalisation() -> None:
    added = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert params(cifar("resnet20")) == params(cifar("resnet20", shortcut="A")) + added


def test_option_a_has_the_names_of_public_checkpoints() -> None:
    names = set(cifar("resnet20", shortcut="A").state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer3.2.bn2.bias", "linear.bias"} <= names
    assert not any("shortcut" in n for n in names)
    assert len([n for n in names if n.endswith(("conv1.weight", "conv2.weight"))]) == 19


def test_pad_shortcut_is_the_identity_convolution() -> None:
    x = torch.randn(2, 4, 6, 6)
    conv = nn.Conv2d(4, 8, 1, 2, bias=False)
    conv.weight.data.zero_()
    for k in range(4):
        conv.weight.data[2 + k, k, 0, 0] = 1
    assert torch.equal(PadShortcut(4)(x), conv(x))


def test_width_scales_every_stage() -> None:
    model = cifar("resnet8", width=2)
    assert [model.get_submodule(f"layer{i}.0.conv2").out_channels for i in (1, 2, 3)] == [32, 64, 128]
    assert params(cifar("resnet20", width=2)) > 3.9 * params(cifar("resnet20"))


@pytest.mark.parametrize(
    ("name", "size", "arguments", "channels"),
    [
        ("resnet8", 8, {}, 1),
        ("resnet8", 7, {"shortcut": "A"}, 3),
        ("resnet18", 32, {"stem": "small"}, 1),
        ("mobilenet_v3_small", 32, {"dropout": 0.5}, 1),
        ("shufflenet_v2_x0_5", 33, {}, 3),
        ("googlenet", 32, {}, 3),
        ("vit_b_16", 32, {"dropout": 0.1}, 3),
        ("vit_b_16", 32, {"stem": "small", "width": 0.0625}, 1),
        ("resnet18", 32, {"stem": "small", "width": 0.25}, 3),
        ("resnext50_32x4d", 32, {"width": 0.5}, 3),
        ("vit", 16, {"patch": 4, "depth": 2, "heads": 2, "width": 16}, 1),
    ],
)
def test_every_kind_gives_logits_and_gradients(name: str, size: int, arguments: dict[str, Any], channels: int) -> None:
    model = build_model(name, arguments, 7, ImageInput(channels, size, size))
    check_output(model, class_logits(7), ImageInput(channels, size, size))
    model(torch.randn(2, channels, size, size)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_small_stem_is_the_usual_one() -> None:
    model = cifar("resnet18", stem="small")
    assert params(model) == 11_173_962  # the count of the common CIFAR ResNet-18
    assert model.get_submodule("layer1")(model.get_submodule("conv1")(torch.zeros(1, 3, 32, 32))).shape[2:] == (32, 32)
    assert params(build_model("resnet18", {}, 1000, ImageInput(3, 224, 224))) == 11_689_512


@pytest.mark.parametrize("name", [n for n in torchvision_names() if not n.startswith("regnet")])  # not without memory
def test_torchvision_s_published_counts(name: str) -> None:
    """Every classifier with published weights has as many parameters as those."""
    from torchvision import models

    weights = next(iter(models.get_model_weights(name)))
    arguments = {"image_size": weights.meta["min_size"][0]} if name.startswith("vit_") else {}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = models.get_model(name, **arguments)
    assert params(model) == weights.meta["num_params"] or name in ("googlenet", "inception_v3")  # auxiliary heads


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "vit_b_16"])
def test_a_width_scales_what_torchvision_builds(name: str) -> None:
    def built(width: float) -> nn.Module:
        with torch.device("meta"):
            return build_model(name, {"width": width} if width else {}, 1000, ImageInput(3, 224, 224))

    usual = built(0)
    assert [(n, p.shape) for n, p in scaled(name, 1.0, 1000).state_dict().items()] == [
        (n, p.shape) for n, p in usual.state_dict().items()
    ]
    assert 3.2 < params(built(2.0)) / params(usual) < 4.1
    assert 0.2 < params(built(0.5)) / params(usual) < 0.35


def test_a_vit_has_the_parameters_of_its_sizes() -> None:
    tokens, width, hidden = 8 * 8 + 1, 128, 256
    layer = 4 * width * width + 4 * width + 2 * width * hidden + hidden + width + 4 * width
    embedding = 3 * 16 * width + width + width + tokens * width
    assert (
        params(build_model("vit", {}, 10, ImageInput(3, 32, 32))) == embedding + 6 * layer + 2 * width + width * 10 + 10
    )


def test_names_hold_both_families_without_a_clash() -> None:
    assert {*DEPTHS, "resnet18", "efficientnet_b0", "vit_b_16"} <= set(model_names())
    assert not set(DEPTHS) & set(torchvision_names())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet_20", {}, r"unknown model 'resnet_20'; nearest valid name: 'resnet20'; a model is one of these"),
        ("mobilenet_v3_smal", {}, r"nearest valid name: 'mobilenet_v3_small'"),
        ("resnet20", {"widht": 2}, r"resnet20: unknown argument 'widht' \(2\); nearest valid name: 'width'"),
        ("resnet20", {"width": 0}, r"resnet20: argument width is 0; must be a number from 0\.0625"),
        ("resnet20", {"width": "2"}, r"resnet20: argument width is '2'"),
        ("resnet20", {"shortcut": "C"}, r"resnet20: argument shortcut is 'C'; must be 'A'"),
        ("resnet18", {"stem": "tiny"}, r"resnet18: argument stem is 'tiny'; must be 'standard' or 'small'"),
        ("vgg11", {"stem": "small"}, r"vgg11: argument stem = 'small' is for the ResNet families"),
        ("vgg11", {"width": 2}, r"vgg11: argument width is for the ResNet and ViT families"),
        ("resnet18", {"width": 0}, r"resnet18: argument width is 0; must be a number from 0\.0625 to 16"),
        (
            "vit",
            {"patch": 5},
            r"vit: the images are 32 x 32 and argument patch is 5; images must be square and patches",
        ),
        ("vit", {"heads": 3}, r"vit: argument width is 128; must be a multiple of heads, 3"),
        ("vit", {"depth": 0}, r"vit: argument depth is 0; must be a whole number from 1"),
        ("vit", {"layers": 3}, r"vit: unknown argument 'layers'"),
        ("resnet18", {"depth": 3}, r"resnet18: torchvision does not build it with arguments \{'depth': 3\}: .*depth"),
    ],
)
def test_what_cannot_be_built(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(name, arguments, 10, ImageInput(3, 32, 32))


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from torch import nn\n"
        "@dataclass\n"
        "class Size:\n"
        "    hidden: int = 5\n"
        "def build(num_classes, hidden=3):\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(hidden), nn.Linear(hidden, num_classes))\n"
        "def with_channels(num_classes, in_channels):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, num_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "def not_a_network(num_classes):\n"
        "    return num_classes\n"
        "def raising(num_classes):\n"
        "    raise KeyError('weights')\n"
    )
    return path


def test_a_function_in_a_users_file(user_file: Path) -> None:
    model = build_model(f"{user_file}:build", {"hidden": 9}, 4, ImageInput(1, 8, 8))
    assert model[2].in_features == 9
    check_output(model, class_logits(4), ImageInput(1, 8, 8))
    check_output(
        build_model(f"{user_file}:with_channels", {}, 4, ImageInput(2, 8, 8)), class_logits(4), ImageInput(2, 8, 8)
    )


def test_a_users_file_leaves_no_bytecode_beside_it(user_file: Path) -> None:
    before = list(sys.path)
    build_model(f"{user_file}:build", {}, 4, ImageInput(1, 8, 8))
    assert [p.name for p in user_file.parent.iterdir()] == ["net.py"]
    assert sys.path == before


def test_a_users_file_that_imports_its_neighbours_is_refused(user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (user_file.parent / "blocks_of_mine.py").write_text("from torch import nn\n")
    user_file.write_text("def build(num_classes):\n    from blocks_of_mine import nn\n    return nn.Linear(1, 1)\n")
    monkeypatch.syspath_prepend(user_file.parent)  # as for who starts Python there
    with pytest.raises(ConfigError, match=r"net\.py: imports blocks_of_mine\.py, which lies beside it; .* alone"):
        build_model(f"{user_file}:build", {}, 4, ImageInput(1, 8, 8))
    text = user_file.read_text()
    unused = "if __name__ == '__main__':\n    import blocks_of_mine\nelse:\n    from torch import nn\n"
    user_file.write_text(f"{unused}def build(num_classes):\n    return nn.Linear(1, 1)\n")
    assert isinstance(build_model(f"{user_file}:build", {}, 4, ImageInput(1, 8, 8)), nn.Linear)
    (user_file.parent / "folder_of_mine").mkdir()
    (user_file.parent / "folder_of_mine" / "blocks.py").write_text("from torch import nn\n")
    user_file.write_text(text.replace("blocks_of_mine", "folder_of_mine.blocks"))
    with pytest.raises(ConfigError, match=r"net\.py: imports folder_of_mine/__init__\.py, which lies beside it"):
        build_model(f"{user_file}:build", {}, 4, ImageInput(1, 8, 8))
    user_file.write_text(text)
    info = user_file.parent / "mine-1.0.dist-info"  # as ``pip install -e .`` leaves it
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("blocks_of_mine\n")
    assert isinstance(build_model(f"{user_file}:build", {}, 4, ImageInput(1, 8, 8)), nn.Linear)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("biuld", {}, r"net\.py: no function 'biuld'; nearest valid name: 'build'"),
        ("build", {"depth": 2}, r"net\.py: build\(.*'depth': 2.*\) raised TypeError: .*'depth'"),
        ("raising", {}, r"net\.py: raising\(.*\) raised KeyError: 'weights'"),
        ("not_a_network", {}, r"net\.py: not_a_network\(\) gave a int; it must give a torch\.nn\.Module"),
    ],
)
def test_bad_functions(user_file: Path, function: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(f"{user_file}:{function}", arguments, 4, ImageInput(1, 8, 8))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.py: cannot be read \(No such file"):
        build_model(f"{tmp_path}/missing.py:build", {}, 4, ImageInput(1, 8, 8))
    (tmp_path / "broken.py").write_text("def build(:\n")
    with pytest.raises(ConfigError, match=r"broken\.py: cannot be executed: SyntaxError"):
        build_model(f"{tmp_path}/broken.py:build", {}, 4, ImageInput(1, 8, 8))


class Odd(nn.Module):
    def __init__(self, give: Any) -> None:
        super().__init__()
        self.give = give

    def forward(self, x: Tensor) -> Any:
        return self.give(x)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (
            lambda x: x.mean((2, 3)),
            r"the model gives \[2, 3\] for images \[2, 3, 8, 8\]; it must give logits \[N, 10\]",
        ),
        (lambda x: x, r"the model gives \[2, 3, 8, 8\]"),
        (lambda x: (x, x), r"the model gives a tuple"),
        (lambda x: x.view(3, 7), r"the model does not take images \[2, 3, 8, 8\]: RuntimeError: .*shape"),
    ],
)
def test_output_of_another_shape(give: Any, message: str) -> None:
    model = Odd(give)
    with pytest.raises(ConfigError, match=message):
        check_output(model, class_logits(10), ImageInput(3, 8, 8))
    assert model.training
