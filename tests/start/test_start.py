"""``init --data``: what is chosen for data, a machine and minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomllib
import torch

from dlx_deploy.config import load_config
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training import speed
from dlx_deploy.stages.support.sizes import larger_student, network_cost
from dlx_deploy.start.choosing import Start, start
from dlx_deploy.start.wish import Wish

from ..conftest import Here, image_folder
from ..masks import mask_folder

TWO = {"dark": 24, "light": 24}


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that trains a sample in a millisecond, whatever this one does."""
    monkeypatch.setattr(speed, "seconds_per_sample", lambda *_: 1e-3)


def chosen(folder: Path, **wishes: Any) -> Start:
    return start(Wish(folder, folder.parent / "deploy.toml", **wishes))


def saved(path: Path, classes: int, content: dict[str, Any] | None = None) -> Path:
    model = build_model("resnet8", {}, classes, ImageInput(3, 8, 8))
    torch.save({"state_dict": model.state_dict(), **(content or {})}, path)
    return path


def test_the_file_loads_and_the_student_is_smaller(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "photos", TWO, side=16)
    made = chosen(folder, minutes=3.0, targets=("rpi5",))
    assert made.values["data.path"] == "photos"
    assert made.values["data.height"] == 16
    assert made.values["targets"] == ["rpi5"]
    assert made.reasons["data.test_fraction"].startswith("there is no test split: ")
    from dlx_deploy.config.template import render

    (tmp_path / "deploy.toml").write_text(render(made.values, made.reasons))
    config = load_config(tmp_path / "deploy.toml", [])
    assert config.teacher.epochs == made.values["teacher.epochs"]
    assert larger_student(config) == ""
    assert made.seconds <= 3 * 60


def test_more_minutes_give_more_epochs_and_larger_networks(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "photos", TWO, side=16)
    short, long = chosen(folder, minutes=0.002), chosen(folder, minutes=60.0)
    data = load_config(None, ["data.kind='imagefolder'", f"data.path='{folder}'", "data.height=16"]).data
    sizes = []
    for made in (short, long):
        given = [f"teacher.model={made.values['teacher.model']!r}", f"teacher.arguments={_toml(made)}"]
        cost = network_cost(load_config(None, given).teacher, data, 2)
        assert cost is not None
        sizes.append(cost.parameters)
    assert sizes[0] < sizes[1]
    assert short.values["teacher.epochs"] < long.values["teacher.epochs"]  # type: ignore[operator]
    assert any("epochs only" in note for note in short.notes)


def _toml(made: Start) -> str:
    from dlx_deploy.config.template import toml_value

    return toml_value(made.values["teacher.arguments"])


def test_a_checkpoint_of_the_data_classes_is_not_trained(tmp_path: Path) -> None:
    folder = image_folder(image_folder(tmp_path / "photos", TWO, side=8), TWO, side=8, split="test")
    path = saved(tmp_path / "w.pt", 2, {"classes": list(TWO)})
    told: list[str] = []
    made = chosen(folder, checkpoint=path, progress=lambda done, total, text="": told.append(text))
    assert "resnet8 is compared" in told
    assert (made.values["teacher.model"], made.values["teacher.checkpoint"]) == ("resnet8", "w.pt")
    assert {key: made.values[key] for key in ("teacher.epochs", "distill.enabled", "prune.enabled")} == {
        "teacher.epochs": 0,
        "distill.enabled": False,
        "prune.enabled": False,
    }
    assert (made.seconds, made.values["data.channels"]) == (0.0, 3)
    assert any("how images were prepared" in note for note in made.notes)


@pytest.mark.parametrize(
    ("classes", "names", "why"),
    [(5, None, "tells 5 classes apart, the data 2"), (2, ["x", "y"], "have other names than the data's")],
)
def test_a_checkpoint_of_other_classes_gets_a_new_head(
    tmp_path: Path, classes: int, names: list[str] | None, why: str
) -> None:
    folder = image_folder(tmp_path / "photos", TWO, side=8)
    path = saved(tmp_path / "w.pt", classes, {"classes": names} if names else {})
    made = chosen(folder, checkpoint=path)
    assert made.values["teacher.new_head"] is True
    assert why in made.reasons["teacher.new_head"]
    assert made.values["teacher.epochs"]


def test_images_to_judge_by_alone_need_a_finished_network(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "photos", TWO, side=8, split="test")
    with pytest.raises(ConfigError, match=r"photos: has no images to train on; give a network .* by --checkpoint"):
        chosen(folder)
    made = chosen(folder, checkpoint=saved(tmp_path / "w.pt", 2))
    assert made.values["teacher.epochs"] == 0


def test_masks_and_texts_get_networks_of_their_own(tmp_path: Path) -> None:
    masks = chosen(mask_folder(tmp_path / "masks", 8, side=32))
    assert (masks.values["data.kind"], masks.values["teacher.model"]) == ("maskfolder", "unet")
    (tmp_path / "texts").mkdir()
    rows = "".join(f"text number {i},{'ab'[i % 2]}\n" for i in range(20))
    (tmp_path / "texts" / "train.csv").write_text("text,label\n" + rows)
    texts = chosen(tmp_path / "texts")
    assert (texts.values["data.kind"], texts.values["teacher.model"]) == ("text", "transformer")


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"task": "sequence-classification"}, r"--task 'sequence-classification' takes data of kind 'docstrings', "),
        ({"model": "resnt8"}, "unknown model 'resnt8'; nearest valid name: 'resnet8'"),
        ({"model": "none.onnx"}, r"--model none\.onnx: no such file"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, wishes: dict[str, Any], message: str) -> None:
    folder = image_folder(tmp_path / "photos", TWO, side=8)
    with pytest.raises(ConfigError, match=message):
        chosen(folder, **wishes)


def test_a_checkpoint_of_no_known_network_is_refused(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "photos", TWO, side=8)
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 2)).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"w\.pt: is of no registered network.*see: dlx-deploy inspect .*--model"):
        chosen(folder, checkpoint=tmp_path / "w.pt")


def test_images_that_cannot_be_opened_are_said(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "photos", TWO, side=8)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none of \d+ images can be opened"):
        chosen(folder)


def test_a_student_that_is_not_smaller_is_said() -> None:
    assert larger_student(load_config(None, [])) == ""
    said = larger_student(load_config(None, ["distill.model='resnet110'"]))
    assert larger_student(load_config(None, ["distill.model='resnet20'", "distill.arguments={width=2.0}"]))  # itself
    assert "the student is not smaller than its teacher: resnet110 has 1.73 M parameters and " in said
    assert "resnet20 1.08 M parameters and 10.1 M multiply-accumulates; set distill.model and distill.arguments" in said


VIEWS = """
from dlx_deploy.nn.models.resnet_cifar import CifarResNet
class Averaged(CifarResNet):
    def forward(self, x): return (super().forward(x) + super().forward(x.flip(3))) / 2
def averaged(num_classes): return Averaged(1, (16, 32, 64), 1, num_classes, "A")
"""


def test_a_student_that_is_asked_once_where_its_teacher_averages_views_is_smaller(tmp_path: Path) -> None:
    (tmp_path / "views.py").write_text(VIEWS)
    given = [f"teacher.model={tmp_path}/views.py:averaged", "distill.model=resnet8"]
    once = ["distill.arguments={width=1.0, shortcut='A'}"]
    assert larger_student(load_config(None, [*given, *once])) == ""
    assert "0.0778 M parameters" in larger_student(load_config(None, [*given, "distill.arguments={shortcut='B'}"]))


def test_the_command_writes_what_builds(here: Here, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "photos", TWO, side=8)
    done = here("init", "--data", folder, "--minutes", "0.01", "--target", "rpi5", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["seen"]["splits"] == {"train": 48}
    assert tomllib.loads((tmp_path / "deploy.toml").read_text())["data"]["path"] == "photos"
    assert here("plan").code == 0
    again = here("init", "--data", folder)
    assert (again.code, "deploy.toml is there already" in again.err) == (2, True)


@pytest.mark.slow
def test_the_file_builds_as_it_stands(here: Here, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "photos", TWO, side=8)
    assert here("init", "--data", folder, "--minutes", "0.01", "--target", "rpi5").code == 0
    built = here("build", "--set", "verify.rounds=10")
    assert built.code in (0, 3, 6), built.err  # whatever so few images prove


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--checkpoint", "w.pt"], "--checkpoint is given without --data"),
        (["--data", "none"], "none: no such folder or file"),
        (["--data", ".", "--minutes", "0"], "--minutes is 0.0; must be more than 0"),
    ],
)
def test_what_the_command_refuses(here: Here, given: list[str], said: str) -> None:
    done = here("init", *given)
    assert (done.code, said in done.err) == (2, True), done.err
