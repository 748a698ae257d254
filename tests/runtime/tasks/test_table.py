"""The table of tasks, and that nothing outside this room asks which of them a package has."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from dlx_deploy.runtime.errors import BackendMissing, InputError, PackageError
from dlx_deploy.runtime.package.fields import Fields
from dlx_deploy.runtime.tasks.classes import Classes
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_classification import image_classification
from dlx_deploy.runtime.tasks.predictions import Predictions
from dlx_deploy.runtime.tasks.table import GROUP, TASKS, open_task
from dlx_deploy.runtime.tasks.task import PredictOptions

RUNTIME = Path(__file__).parents[3] / "dlx_deploy" / "runtime"
OUTSIDE = sorted(p for p in RUNTIME.rglob("*.py") if p.parent.name != "tasks")
PARTS = r"\b(image_inputs|text_inputs|ImageInputs|TextInputs|IMAGES|TOKENS|Classes|pad_id|is_text|tokenizer)\b"
OF_INPUTS = rf"{PARTS}|\.noun\s*[=!]=|isinstance\([^)]*(Inputs|Outputs)\)|dtype [!=]= np\.uint8"
ASKING = rf"{OF_INPUTS}|task\.name\s*[=!]=|\"({'|'.join(TASKS)})\""


@pytest.mark.parametrize("source", OUTSIDE, ids=lambda p: p.relative_to(RUNTIME).as_posix())
def test_nothing_outside_asks_for_the_task(source: Path) -> None:
    code = re.sub(r'""".*?"""|#.*', "", source.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert re.findall(ASKING, code) == []


def test_the_guard_finds_what_it_guards() -> None:
    for wrong in (
        "if package.task.inputs.noun == 'texts':",
        "from ..tasks.image_inputs import ImageInputs",
        "if isinstance(task.inputs, TextInputs):",
        'if meta["task"] == "image-classification":',
        "row != spec.pad_id",
        "feeds[IMAGES]",
        "if array.dtype != np.uint8:",
    ):
        assert re.findall(ASKING, wrong), wrong


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(PackageError, match=r"task is 'detection'; must be one of image-classification, s"):
        open_task(Fields({"task": "detection"}, "x.dlx"))


def test_every_task_of_the_table_is_there() -> None:
    for name in TASKS:
        with pytest.raises(PackageError, match=r"inputs\.0 is None; must be of type dict"):
            open_task(Fields({"task": name}, "x.dlx"))


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution that offers two tasks, one of which is broken."""
    points = "measuring = other_package:open_task\nlost = other_package:nothing"
    info = tmp_path / "other_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n")
    (tmp_path / "other_package.py").write_bytes(Path(__file__).with_name("made_up.py").read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "other_package", raising=False)
    return tmp_path


@pytest.mark.usefixtures("other_package")
def test_a_task_of_another_package_opens_where_that_is_installed() -> None:
    task = open_task(Fields({"task": "measuring", "units": {"m": 1}}, "x.dlx"))
    assert (task.name, task.inputs.read("1 2 m")["size"].tolist()) == ("measuring", [[1]])
    with pytest.raises(BackendMissing, match=r"task 'lost': 'other_package:nothing' cannot be loaded .*; reinstall it"):
        open_task(Fields({"task": "lost"}, "x.dlx"))


def test_predictions_as_values() -> None:
    predictions = Predictions(np.log(np.array([[0.25, 0.75]], np.float32)), ("a", "b")).to_dict()
    assert (predictions["classes"], predictions["labels"]) == ([1], ["b"])
    assert predictions["probabilities"][0] == pytest.approx([0.25, 0.75])


def test_a_class_is_no_file(tmp_path: Path) -> None:
    task = image_classification(Framing(2, 2, 1), ["a", "b"])
    assert isinstance(task.outputs, Classes)
    with pytest.raises(InputError, match=r"out is '.*', and a class is no file; leave it out"):
        task.outputs.rows(Predictions.__new__(Predictions), [], PredictOptions(out=tmp_path))
