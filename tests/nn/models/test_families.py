"""Families of networks, known without torch; and which of them a task may be given."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn
from torchvision import models

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models import families
from dlx_deploy.nn.models.families import FAMILIES, Family, family_of, loaded, model_names, torchvision_names, unlisted
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.names import check_name
from dlx_deploy.nn.models.registry import build_model, check_output, is_ours
from dlx_deploy.nn.models.resnet_cifar import DEPTHS
from dlx_deploy.nn.models.sequence import SEQUENCE_DEFAULTS

OF_CLASSES = tuple(family for family in FAMILIES if family.gives == "classes")
PIXELS = Family("images", "masks", f"{__name__}:per_pixel", ("pixels", "pixels_wide"), example="pixels")


def per_pixel(name: str, arguments: dict[str, Any], classes: int, spec: ImageInput) -> nn.Module:
    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(spec.channels, classes, 1 if name == "pixels" else 3, padding="same")

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(x)
            return logits

    return Pixels()


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family that gives masks, beside those that there are."""
    monkeypatch.setattr(families, "FAMILIES", (*FAMILIES, PIXELS))


def test_the_names_known_without_torch_are_those_known_with_it() -> None:
    assert sorted(torchvision_names()) == sorted(models.list_models(module=models))
    rooms = {"segmentation": models.segmentation, "detection": models.detection, "video": models.video}
    for room, module in rooms.items():
        assert sorted(torchvision_names(room)) == sorted(models.list_models(module=module))
    assert set(model_names("texts")) == set(SEQUENCE_DEFAULTS)
    assert set(DEPTHS) | {"vit", "resnet18"} <= set(model_names("images", "classes"))


def test_a_name_belongs_to_one_family() -> None:
    names = [name for family in FAMILIES for name in family.listed()]
    assert len(names) == len(set(names)) > 80
    prefixes = [family.prefix for family in FAMILIES if family.prefix]
    assert prefixes == ["timm:", "hf:", "hf:"]
    assert len({(family.prefix, family.reads) for family in FAMILIES if family.prefix}) == len(prefixes)
    assert not any(name.startswith(tuple(prefixes)) or ".py:" in name for name in names)
    assert all(family_of(name) is family for family in FAMILIES for name in family.listed())
    assert family_of("net.py:resnet20") is None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.builder)
def test_what_a_family_says_is_there(family: Family) -> None:
    assert callable(loaded(family.builder))
    assert not family.weights or callable(loaded(family.weights))
    shown = re.sub("NAME.*", "x", family.example)
    assert family_of(shown, family.reads) is family
    assert not family.recipe or callable(loaded(family.recipe))


def test_nothing_heavy_is_loaded_to_check_a_name() -> None:
    code = (
        "import sys; from dlx_deploy.nn.models.names import check_name\n"
        "check_name('teacher', 'mobilenet_v3_small', 'images', 'classes', {})\n"
        "print([m for m in ('numpy', 'torch', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("model", "reads", "gives", "message"),
    [
        (
            "transformer", "images", "classes",
            r"model 'transformer' is for texts, and the data are images; set teacher\.model for instance to "
            r"'resnet20', .*, 'timm:NAME', 'hf:NAME_OR_PATH' or 'FILE\.py:FUNCTION'",
        ),
        ("timm:x", "texts", "classes", r"'timm:x' is for images, and the data are texts; .* 'transformer', 'hf:NAME"),
        (
            "resnet20", "images", "masks",
            r"model 'resnet20' gives classes, and the data ask for masks; set .*\.model for instance to .*'pixels' or "
            r"'FILE\.py:FUNCTION'",
        ),
        ("timm:x", "images", "masks", r"model 'timm:x' gives classes, and the data ask for masks; .* 'pixels' or"),
        ("pixels", "images", "classes", r"model 'pixels' gives masks, and the data ask for classes; .* 'resnet20', "),
        ("vit", "images", "boxes", r"'vit' gives classes, and the data ask for boxes; set teacher\.model to 'FILE"),
        (
            "pixel", "images", "masks",
            r"teacher\.model is 'pixel', unknown; nearest valid name: 'pixels'; it is one of these, 'FILE\.py:FUNC",
        ),
        ("resnt20", "images", "classes", r"unknown; nearest valid name: 'resnet20'; .*'timm:NAME' or 'hf:NAME"),
        ("x", "images", "boxes", r"teacher\.model is 'x', unknown; 'FILE\.py:FUNCTION'"),
        ("hf:/none", "texts", "classes", r"teacher\.model is 'hf:/none', and there is no such folder"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("masks")
def test_what_the_data_do_not_ask_for_is_refused(model: str, reads: Any, gives: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_name("teacher", model, reads, gives, {})


@pytest.mark.usefixtures("masks")
def test_a_family_is_a_line_and_a_builder() -> None:
    spec = ImageInput(3, 8, 8)
    for name in PIXELS.listed():
        check_name("teacher", name, "images", "masks", {})
        check_output(build_model(name, {}, 5, spec), {"logits": (5, 8, 8)}, spec)
        assert is_ours(name)
    with pytest.raises(ConfigError, match=r"unknown model 'pixls'; nearest valid name: 'pixels'"):
        build_model("pixls", {}, 5, spec)


def test_a_function_of_the_user_s_may_give_anything(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\n"
        "def per_pixel(num_classes, in_channels):\n"
        "    return nn.Conv2d(in_channels, num_classes, 3, padding=1)\n"
    )
    for gives in ("classes", "masks"):
        check_name("teacher", "model.py:per_pixel", "images", gives, {"source": path})
    spec = ImageInput(3, 8, 8)
    model = build_model(f"{path}:per_pixel", {}, 5, spec)
    check_output(model, {"logits": (5, 8, 8)}, spec)
    with pytest.raises(ConfigError, match=r"the model gives \[2, 5, 8, 8\] .*; it must give logits \[N, 5\]"):
        check_output(model, {"logits": (5,)}, spec)


def test_a_network_of_another_package_may_give_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "dense_nets-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: dense-nets\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[dlx_deploy.models]\ndense = dense_nets:per_pixel\n")
    (tmp_path / "dense_nets.py").write_text(
        "from torch import nn\n"
        "def per_pixel(num_classes, in_channels):\n"
        "    return nn.Conv2d(in_channels, num_classes, 3, padding=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    check_name("teacher", "dense", "images", "masks", {})
    spec = ImageInput(3, 8, 8)
    check_output(build_model("dense", {}, 5, spec), {"logits": (5, 8, 8)}, spec)
    assert not is_ours("dense")
    sys.modules.pop("dense_nets")


def test_where_torchvision_cannot_be_listed_its_builder_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    masks = families._of_torchvision("masks", "segmentation", "made_up:build", "lraspp_mobilenet_v3_large")
    monkeypatch.setattr(families, "FAMILIES", (*OF_CLASSES, masks, PIXELS))
    with monkeypatch.context() as unimported:
        unimported.delitem(sys.modules, "torchvision.models")
        assert torchvision_names() == ()
        assert unlisted("images", "classes")
        assert unlisted("images", "masks")
        assert not unlisted("images", "boxes")
        assert not unlisted("texts")
        check_name("teacher", "resnet18", "images", "classes", {})
        check_name("teacher", "lraspp_mobilenet_v3_large", "images", "masks", {})
        assert not is_ours("resnet18")
    assert torchvision_names("segmentation")
    assert family_of("resnet18") in OF_CLASSES
    assert family_of("lraspp_mobilenet_v3_large") is masks
    assert isinstance(build_model("resnet18", {}, 5, ImageInput(3, 32, 32)), nn.Module)


def test_a_name_for_masks_is_refused_where_torchvision_has_none_to_be_listed_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(families, "FAMILIES", (*OF_CLASSES, PIXELS))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "torchvision.models")
    with pytest.raises(ConfigError, match=r"teacher.model is 'pixel', unknown; nearest valid name: 'pixels'"):
        check_name("teacher", "pixel", "images", "masks", {})


def test_a_network_is_built_although_torchvision_has_no_source_here(tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'torchvision' else find(name, package)\n"
        "from dlx_deploy.errors import ConfigError\n"
        "from dlx_deploy.nn.models.inputs import ImageInput\n"
        "from dlx_deploy.nn.models.registry import build_model, is_ours\n"
        "known = [is_ours('resnet18')]\n"
        "network = build_model('resnet18', {}, 5, ImageInput(3, 32, 32))\n"
        "print(known, is_ours('resnet18'), type(network).__name__)\n"
        "try: build_model('resnet81', {}, 5, ImageInput(3, 32, 32))\n"
        "except ConfigError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    built, refused = done.stdout.splitlines()
    assert built == "[False] True ResNet"
    assert refused.startswith("unknown model 'resnet81'; nearest valid name: 'resnet8'")
