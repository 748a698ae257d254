"""What [data] leaves open is what the weights say, and what it says otherwise is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dlx_deploy.config import Config, load_config
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.data.frames import framing_of
from dlx_deploy.nn.models.recipes import Reading, Recipe
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.tasks import recipes
from dlx_deploy.tasks.recipes import asked_apart, with_recipe

RECIPE = Recipe(
    origin="their table",
    height=224,
    width=224,
    resize="crop",
    resize_size=(256, 256),
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
WORSE = "the network may answer worse than it could"


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has the weights say a recipe."""

    def set_recipe(recipe: Recipe | None = RECIPE, reason: str = "") -> None:
        monkeypatch.setattr(recipes, "read_recipe", lambda *_: Reading(recipe=recipe, reason=reason))

    set_recipe()
    return set_recipe


def config(*more: str) -> Config:
    return load_config(None, ["data.kind=imagefolder", "data.path=set", "teacher.model=timm:x", *more])


def test_all_of_it_is_taken_where_nothing_is_said(says: Any, tmp_path: Path) -> None:
    made, notes = with_recipe(config(), tmp_path)
    assert framing_of(made.data) == Framing(224, 224, 3, "crop", (256, 256), "bicubic")
    assert (made.data.mean, made.data.std, made.data.originals) == (RECIPE.mean, RECIPE.std, 64)
    assert notes == (
        "[data] as their table says: height = 224, width = 224, resize = 'crop', resize_size = [256, 256], "
        "interpolation = 'bicubic', mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225]",
    )
    assert with_recipe(made, tmp_path) == (made, ())  # written down, it is no other
    assert replace(made, data=config().data) == config()


@pytest.mark.parametrize(
    ("keys", "framing", "told"),
    [
        (["data.height=112"], Framing(112, 112, 3, "crop", (128, 128), "bicubic"), ["the size is 112 x 112"]),
        (
            ["data.resize=squash"],
            Framing(224, 224, 3, "squash", (), "bicubic"),
            ["pictures are brought to it by squash, and their table says crop from 256 x 256"],
        ),
        (
            ["data.crop_fraction=1.0", "data.interpolation=bilinear"],
            Framing(224, 224, 3, "crop"),
            [
                "pictures are brought to it by crop, and their table says crop from 256 x 256",
                "the interpolation is bilinear, and their table says bicubic",
            ],
        ),
        (
            ["data.mean=[0.5,0.5,0.5]", "data.std=[0.2291,0.224,0.225]"],
            Framing(224, 224, 3, "crop", (256, 256), "bicubic"),
            ["the mean is [0.5, 0.5, 0.5], and their table says [0.485, 0.456, 0.406]"],
        ),
        (
            ["data.scale=1.0", "data.mean=[123.675,116.28,103.53]", "data.std=[58.395,57.12,57.375]"],
            Framing(224, 224, 3, "crop", (256, 256), "bicubic"),
            [],
        ),
        (
            ["data.color_order=bgr"],
            Framing(224, 224, 3, "crop", (256, 256), "bicubic", color_order="bgr"),
            ["colours are in the order bgr, and their table says rgb"],
        ),
        (
            ["data.channels=1"],
            Framing(224, 224, 1, "crop", (256, 256), "bicubic"),
            ["images are grey, and their table says colour"],
        ),
    ],
)
def test_what_is_said_stays_and_is_held_against_it(
    keys: list[str], framing: Framing, told: list[str], says: Any, tmp_path: Path
) -> None:
    made, notes = with_recipe(config(*keys), tmp_path)
    assert framing_of(made.data) == framing
    mismatches = [note for note in notes if note.endswith(WORSE)]
    assert len(mismatches) == len(told)
    assert all(expected in note for note, expected in zip(mismatches, told, strict=True))
    assert made.data.channels != 1 or made.data.mean == ()


def test_a_recipe_with_padding_and_another_order(says: Any, tmp_path: Path) -> None:
    says(replace(RECIPE, resize="letterbox", resize_size=(224, 224), fill=(124, 116, 104), color_order="bgr"))
    made, notes = with_recipe(config(), tmp_path)
    assert framing_of(made.data) == Framing(224, 224, 3, "letterbox", (), "bicubic", (124, 116, 104), "bgr")
    assert len(notes) == 1


def test_a_recipe_that_rounds_what_is_cut_off_down(says: Any, tmp_path: Path) -> None:
    says(replace(RECIPE, crop_offset="floor"))
    made, notes = with_recipe(config(), tmp_path)
    assert framing_of(made.data) == Framing(224, 224, 3, "crop", (256, 256), "bicubic", crop_offset="floor")
    assert len(notes) == 1
    made, notes = with_recipe(config("data.crop_offset=round"), tmp_path)
    assert framing_of(made.data).crop_offset == "round"
    assert "half of what is cut off is rounded by round, and their table says floor" in notes[1]
    made, _ = with_recipe(config("data.resize=squash"), tmp_path)
    assert made.data.crop_offset == ""  # nothing is cut off


def test_a_recipe_of_any_size(says: Any, tmp_path: Path) -> None:
    says(replace(RECIPE, height=0, width=0, resize="", resize_size=(520, 520)))
    made, notes = with_recipe(config(), tmp_path)
    assert (made.data.height, len(notes)) == (0, 1)  # its check asks for it
    made, notes = with_recipe(config("data.height=96"), tmp_path)
    assert framing_of(made.data) == Framing(96, 96, 3, interpolation="bicubic")
    assert len(notes) == 1


def test_an_unknown_recipe_is_said(says: Any, tmp_path: Path) -> None:
    says(None, "it does things")
    given = config()
    made, notes = with_recipe(given, tmp_path)
    assert made == given
    assert notes == (
        "[data]: how the weights want pictures preprocessed is not known (it does things); say it there if they do",
    )


def test_images_that_are_no_files_and_texts_have_none(says: Any, tmp_path: Path) -> None:
    for kind in ("digits", "scenes", "docstrings", "text"):
        given = load_config(None, [f"data.kind={kind}"])
        assert with_recipe(given, tmp_path) == (given, ())


def test_nobody_is_asked_apart_where_nobody_would_be_asked(tmp_path: Path) -> None:
    for kind in ("digits", "text", "imagefolder"):
        keys = (f"data.kind={kind}", "data.path=set", "teacher.model=resnet18")
        assert asked_apart(load_config(None, keys), tmp_path) is None  # trained from nothing


def test_keys_that_contradict_each_other(says: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.crop_fraction is 0\.9 and data\.resize_size"):
        with_recipe(config("data.height=9", "data.crop_fraction=0.9", "data.resize_size=[10]"), tmp_path)


def test_a_plan_needs_no_library_once_it_was_asked_nor_a_build_whose_worker_asks(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"input_size": [3, 48, 48]}}')
    keys = ["teacher.checkpoint=" + repr(str(tmp_path / "w.pt"))]
    workers = asked_apart(config(*keys), tmp_path / "recipes")
    assert workers is not None
    assert [worker.holds for worker in workers._idle] == [{"torch"}]
    workers.stop()
    assert asked_apart(config(*keys), tmp_path / "recipes") is None
    code = (
        "import sys; from pathlib import Path; from dlx_deploy.config import load_config\n"
        "from dlx_deploy.tasks.recipes import with_recipe\n"
        "keys = ['data.kind=imagefolder', 'data.path=set', 'teacher.model=timm:x', *sys.argv[2:]]\n"
        "made, _ = with_recipe(load_config(None, keys), Path(sys.argv[1]))\n"
        "print(made.data.height, [m for m in ('numpy', 'torch', 'timm') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "recipes"), *keys]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "48 []"
