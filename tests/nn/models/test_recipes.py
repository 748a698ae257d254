"""What weights say of preprocessing, read and held against what their own library does to the same pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dlx_deploy.config import Teacher
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models import recipes
from dlx_deploy.nn.models.families import FAMILIES, Family
from dlx_deploy.nn.models.recipe_readers import hf_recipe, timm_recipe, torchvision_recipe
from dlx_deploy.nn.models.recipes import Recipe, Trained, UnknownRecipe, read_recipe, trained_by
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.images import fit_image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pictures() -> list[Image.Image]:
    """Lying, standing, smaller than any recipe's size, and with an odd number of pixels to cut.

    None is so tall that newer Pillows resize its columns first: ``framing`` never does.
    """
    rng = np.random.default_rng(0)
    sizes = [(90, 61), (80, 97), (20, 31), (64, 64), (131, 100)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def ours(recipe: Recipe, picture: Image.Image) -> torch.Tensor:
    """What a network reads: float32[C, H, W]."""
    frame = Framing(
        recipe.height, recipe.width, 3, recipe.resize, recipe.resize_size, recipe.interpolation, recipe.fill or (0,),
        recipe.color_order, recipe.crop_offset,
    )  # fmt: skip
    pixels = torch.from_numpy(fit_image(picture, frame)).float() / 255
    return ((pixels - torch.tensor(recipe.mean)) / torch.tensor(recipe.std)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("crop", (54, 54), "bicubic")),
        ({"crop_pct": 1.0, "interpolation": "bilinear"}, ("crop", (48, 48), "bilinear")),
        ({"crop_mode": "squash", "interpolation": "lanczos"}, ("squash", (54, 54), "lanczos")),
        ({"crop_mode": "border", "crop_pct": 0.9}, ("letterbox", (53, 53), "bicubic")),
        ({"input_size": [3, 40, 56], "mean": [0.5] * 3}, ("crop", (45, 64), "bicubic")),
    ],
)
def test_timm_s_pretrained_cfg_beside_a_checkpoint(changes: Any, expected: tuple[Any, ...], tmp_path: Path) -> None:
    timm: Any = pytest.importorskip("timm")
    config = {"input_size": [3, 48, 48], "interpolation": "bicubic", "mean": MEAN, "std": STD, "crop_pct": 0.875}
    config |= {"crop_mode": "center", **changes}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": config}))
    recipe = timm_recipe(Trained("resnet18", config=tmp_path / "config.json"))
    assert (recipe.resize, recipe.resize_size, recipe.interpolation) == expected
    assert (recipe.height, recipe.width) == tuple(config["input_size"][1:])
    theirs = timm.data.create_transform(**timm.data.resolve_data_config({}, pretrained_cfg=config))
    for picture in pictures():
        torch.testing.assert_close(ours(recipe, picture), theirs(picture), rtol=0, atol=2e-6)


def test_timm_s_own_table() -> None:
    pytest.importorskip("timm")
    recipe = timm_recipe(Trained("tf_efficientnet_lite0", pretrained="DEFAULT"))
    assert recipe == Recipe(
        origin="timm's pretrained_cfg of tf_efficientnet_lite0.in1k", height=224, width=224, resize="crop",
        resize_size=(256, 256), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="timm has no model 'resnet19'; it has resnet18"):
        timm_recipe(Trained("resnet19", pretrained="DEFAULT"))


@pytest.mark.parametrize(
    ("trained", "name", "box"),
    [
        (Trained("resnet50", pretrained="DEFAULT"), "ResNet50_Weights.IMAGENET1K_V2", (232, 232)),
        (Trained("resnet50", pretrained="IMAGENET1K_V1"), "ResNet50_Weights.IMAGENET1K_V1", (256, 256)),
        (
            Trained("resnet50", checkpoint=Path("down/resnet50-0676ba61.pth")),
            "ResNet50_Weights.IMAGENET1K_V1",
            (256, 256),
        ),
        (Trained("resnet50", checkpoint=Path("mine.pth")), "ResNet50_Weights.IMAGENET1K_V2", (232, 232)),
    ],
)
def test_torchvision_s_transforms(trained: Trained, name: str, box: tuple[int, int]) -> None:
    from torchvision import models

    recipe = torchvision_recipe(trained)
    assert recipe.origin == f"the transforms of torchvision's {name}"
    assert (recipe.height, recipe.resize, recipe.resize_size, recipe.mean) == (224, "crop", box, MEAN)
    transform: Any = models.get_weight(name).transforms()
    for picture in pictures()[:2]:
        torch.testing.assert_close(ours(recipe, picture), transform(picture), rtol=0, atol=2e-6)


def test_torchvision_s_segmentation_says_no_size() -> None:
    recipe = torchvision_recipe(Trained("lraspp_mobilenet_v3_large", pretrained="DEFAULT"))
    assert (recipe.height, recipe.resize, recipe.interpolation) == (0, "", "bilinear")
    with pytest.raises(UnknownRecipe, match="torchvision has no weights 'V9' of resnet18"):
        torchvision_recipe(Trained("resnet18", pretrained="V9"))


def processor(folder: Path, kind: str, model_type: str, **fields: Any) -> Trained:
    """A Hugging Face model's folder as far as preprocessing goes."""
    pytest.importorskip("transformers")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": kind, **fields}))
    return Trained(str(folder), pretrained="DEFAULT", folder=folder)


@pytest.mark.parametrize(
    ("kind", "model_type", "fields", "expected"),
    [
        ("ViTImageProcessor", "vit", {"size": {"height": 48, "width": 48}, "resample": 2}, ("squash", 48, 48)),
        ("ConvNextImageProcessor", "resnet", {"size": {"shortest_edge": 48}, "crop_pct": 0.875}, ("crop", 48, 54)),
        ("ConvNextImageProcessor", "resnet", {"size": {"shortest_edge": 384}}, ("squash", 384, 384)),
        (
            "BitImageProcessor",
            "bit",
            {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}, "resample": 3},
            ("crop", 48, 56),
        ),
        (
            "DeiTImageProcessor",
            "deit",
            {"size": {"height": 56, "width": 56}, "crop_size": {"height": 48, "width": 48}},
            ("squash", 48, 56),
        ),
        (
            "MobileViTImageProcessor",
            "mobilevit",
            {"size": {"shortest_edge": 54}, "crop_size": {"height": 48, "width": 48}},
            ("crop", 48, 54),
        ),
        ("LevitImageProcessor", "levit", {"size": {"shortest_edge": 224}}, ("crop", 224, 256)),
        ("PoolFormerImageProcessor", "poolformer", {"size": {"shortest_edge": 224}}, ("crop", 224, 248)),
        (
            "EfficientNetImageProcessor",
            "efficientnet",
            {"size": {"height": 48, "width": 48}, "rescale_factor": 1 / 127.5, "rescale_offset": True},
            ("squash", 48, 48),
        ),
    ],
)
def test_hugging_face_s_processors(
    kind: str, model_type: str, fields: Any, expected: tuple[str, int, int], tmp_path: Path
) -> None:
    trained = processor(tmp_path, kind, model_type, **fields)
    recipe = hf_recipe(trained)
    assert (recipe.resize, recipe.height, recipe.resize_size[0]) == expected
    transformers: Any = pytest.importorskip("transformers")
    theirs = transformers.AutoImageProcessor.from_pretrained(str(tmp_path))
    for picture in pictures():
        there = theirs(picture, return_tensors="pt").pixel_values[0]
        # Its filter rounds otherwise than Pillow's; in noise, a px beside the right one is as far off as any other.
        levels = (ours(recipe, picture) - there).abs() * torch.tensor(recipe.std)[:, None, None] * 255
        assert levels.mean() < 0.5


@pytest.mark.parametrize(
    ("kind", "model_type", "fields", "message"),
    [
        ("ImageGPTImageProcessor", "imagegpt", {}, r"ImageGPTImageProcessor\w* is not one of which it is known here"),
        ("ViTImageProcessor", "vit", {"do_resize": False}, r"resizes to \{.*224.*\}, or not at all"),
        ("ViTImageProcessor", "vit", {"do_rescale": False}, "does not rescale pixels"),
        ("BitImageProcessor", "bit", {"do_center_crop": False}, "gives images of several sizes"),
        (
            "BitImageProcessor",
            "bit",
            {"size": {"shortest_edge": 40}, "crop_size": {"height": 48, "width": 48}},
            r"images are resized to \[40, 40\], and padded to \[48, 48\]",
        ),
    ],
)
def test_what_no_frame_expresses(kind: str, model_type: str, fields: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownRecipe, match=message):
        hf_recipe(processor(tmp_path, kind, model_type, **fields))


def test_a_folder_without_a_processor(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UnknownRecipe, match=r"has no (preprocessor_config\.json|image processor)"):
        hf_recipe(Trained(str(tmp_path), pretrained="DEFAULT", folder=tmp_path))


def test_timm_s_network_in_hugging_face_s_folder(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    config = {"model_type": "timm_wrapper", "pretrained_cfg": {"input_size": [3, 64, 64], "crop_pct": 1.0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    recipe = hf_recipe(Trained(str(tmp_path), pretrained="DEFAULT", folder=tmp_path))
    assert (recipe.origin, recipe.height) == ("pretrained_cfg in config.json", 64)


@pytest.mark.parametrize(
    "section",
    [
        Teacher(),
        Teacher(model="resnet18"),
        Teacher(model="net.py:make", checkpoint="w.pt"),
        Teacher(model="resnet20", checkpoint="w.pt"),
        Teacher(model="timm:resnet18"),
    ],
)
def test_nobody_knows_a_recipe(section: Teacher, tmp_path: Path) -> None:
    assert trained_by(section) is None
    assert read_recipe(section, tmp_path / "kept") == recipes.Reading()
    assert not (tmp_path / "kept").exists()


def test_weights_that_were_made_here_saw_what_data_said(tmp_path: Path) -> None:
    section = Teacher(model="timm:resnet18", checkpoint=str(tmp_path / "weights.safetensors"))
    found = trained_by(section)
    assert found is not None
    assert found[1].config is None
    (tmp_path / "architecture.json").write_text("{}")
    assert trained_by(section) is None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Trained]:
    """Torchvision's classifiers, of which a reader here knows what it was asked."""
    told: list[Trained] = []

    def read(trained: Trained) -> Recipe:
        told.append(trained)
        if trained.pretrained == "LOST":
            raise UnknownRecipe("nobody wrote it down")
        if trained.pretrained == "FAR":
            raise ConnectionError("no route\nto it")
        if trained.pretrained == "NEW":
            raise ImportError("no torchvision")
        return Recipe(
            origin="it", height=8, width=8, resize="squash", resize_size=(8, 8), interpolation="box", mean=(0.5,),
            std=(1.0,),
        )  # fmt: skip

    def family(model: str, reads: str) -> Family:
        return next(one for one in FAMILIES if one.example == "mobilenet_v3_small")

    monkeypatch.setattr(recipes, "family_of", family)
    monkeypatch.setattr(recipes, "loaded", lambda point: read)
    return told


def test_a_recipe_is_asked_for_once(asked: list[Trained], tmp_path: Path) -> None:
    section = Teacher(model="resnet18", checkpoint=str(tmp_path / "w.pth"))
    first = read_recipe(section, tmp_path / "kept")
    assert first.recipe is not None
    assert read_recipe(section, tmp_path / "kept") == first
    assert len(asked) == 1
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_text("damaged")
    assert read_recipe(section, tmp_path / "kept") == first
    (tmp_path / "config.json").write_text("{}")  # decides it too
    assert read_recipe(section, tmp_path / "kept") == first
    assert len(asked) == 3
    (tmp_path / "file").write_text("")
    assert read_recipe(section, tmp_path / "file") == first  # nothing can be kept there


@pytest.mark.parametrize(
    ("weights", "reason", "times"),
    [("LOST", "nobody wrote it down", 1), ("FAR", "no route", 2), ("NEW", "", 2)],
)
def test_no_recipe(weights: str, reason: str, times: int, asked: list[Trained], tmp_path: Path) -> None:
    section = Teacher(model="resnet18", pretrained=weights)
    for _ in range(2):
        assert read_recipe(section, tmp_path) == recipes.Reading(reason=reason)
    assert len(asked) == times
