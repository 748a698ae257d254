"""Tasks by name and by what they take; and that nothing else asks which one it is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import dlx_deploy
from dlx_deploy.config import Config, Data, Distill, Prune
from dlx_deploy.errors import ConfigError
from dlx_deploy.stages.order import steps_for
from dlx_deploy.targets import load_target
from dlx_deploy.tasks import TASKS, check_offered, find_task, is_built_in, kinds_with_a_path, task_for
from dlx_deploy.tasks.classes import Classes

ROOT = Path(dlx_deploy.__file__).parent
ROOMS = ("tasks/", "runtime/tasks/", "nn/data/", "nn/models/", "runtime/package/schema1.py")
"""Where it is asked: both halves of the tasks, their data's sources, the model registry, the old layout of packages."""
EXCEPTED = ("graph/checks/rows.py",)
"""Whose one question is of arrays, not of tasks: what looks like images is made darker."""
SHARED = ("nn/data/copies.py", "nn/data/prepare.py", "nn/data/splits.py")
"""What sources of all tasks go through."""
KINDS = "|".join(kind for name in TASKS for kind in find_task(name).kinds)
ASKED = re.compile(
    r"\bis_text\b|isinstance\([^()]*\b(?:(?:Token|Image|Text|Mask)\w+|ExportSpec|Images|Texts|Classes)\b|_TASK\b"
    r"|\bimages\.ndim\b|\.dtype (?:==|!=|in) \(?(?:np|torch)\.(?:uint8|int32)\b"
    rf"|{'|'.join(TASKS)}|data\.kind (?:==|in|!=)|\.kind == .(?:{KINDS})\b"
)


KNOWS_CLASSES = re.compile(
    r"top.?1\b|top1|^(?!.*\baxes\.).*\blabels?\b|largest.class|\bchance\b|paired_counts", re.IGNORECASE
)
KNOWING = ("building.py", "commands/", "delivery.py", "devices/", "pipeline/", "report/", "stages/")
"""Rooms that judge, report and pack by asking the task: no word of theirs is of classes."""


def test_each_kind_of_data_has_one_task() -> None:
    kinds = [(kind, name) for name in TASKS for kind in find_task(name).kinds]
    assert len(dict(kinds)) == len(kinds)
    for kind, name in kinds:
        assert task_for(Data(kind=kind)).name == name
    given = [kind for name in TASKS for kind, own in find_task(name).kinds.items() if not own]
    assert kinds_with_a_path() == given
    assert {"imagefolder", "text"} <= set(given)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"dataset 'digit' is not known; nearest valid name: 'digits'; set data\.kind"
    ):
        task_for(Data(kind="digit"))
    with pytest.raises(ConfigError, match=r"task 'image-clasification' is not known; nearest .*'image-classification'"):
        find_task("image-clasification")


@pytest.fixture
def shades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that brings a task of its own, for the kind of data ``shades``."""
    site = tmp_path / "site"
    about = site / "shade_task-2.4.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shade-task\nVersion: 2.4.0\n")
    points = "[dlx_deploy.tasks]\nshading = shade_task:TASK\n[dlx_deploy.datasets]\nshades = shade_task:TASK\n"
    broken = (
        "none = shade_task:NONE\nraising = shade_task.missing:TASK\nhues = shade_task:TASK\nlost = shade_task:LOST\n"
    )
    (about / "entry_points.txt").write_text(points + broken)
    (site / "shade_task.py").write_text(
        "from dataclasses import replace\n"
        "from dlx_deploy.tasks import find_task\n"
        "ours = find_task('image-classification')\n"
        "TASK = replace(ours, name='shading', kinds={'shades': 'shades of grey'}, files=lambda data: {})\n"
        "NONE = 3\n"
        "from dlx_deploy.tasks import DataKind\n"
        "LOST = DataKind('shadowing', 'shadows', lambda data: {}, ours.source, ours.classes)\n"
    )
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("shade_task", None)


def test_a_task_of_another_package_is_in_every_key(shades: None) -> None:
    assert task_for(Data(kind="shades")).name == find_task("shading").name == "shading"
    config, profile = Config(data=Data(kind="shades")), load_target("cpu-x86_64").profile
    ours = steps_for(Config(), profile)
    brought = steps_for(config, profile)
    assert [step.name for step in brought] == [step.name for step in ours]
    assert all("shade-task" in step.stage.tools for step in brought)
    assert not any("shade-task" in step.stage.tools for step in ours)


def test_which_kinds_need_no_path(shades: None) -> None:
    assert is_built_in("digits")
    assert is_built_in("docstrings")
    assert is_built_in("shades")
    assert not any(map(is_built_in, ("imagefolder", "text", "photos/test", "raising")))


def test_a_task_that_is_not_whole_is_refused_in_a_plan(shades: None) -> None:
    data = Data(kind="shades")
    message = (
        r"data\.kind 'shades' is of task 'shading', and shade-task offers no such name in the entry points "
        r"dlx_deploy\.headers; add shading there: its data's Header"
    )
    with pytest.raises(ConfigError, match=message):
        check_offered(data, task_for(data))
    check_offered(Data(), task_for(Data()))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", r"entry point 'shade_task:NONE' gives a int; rule: a dlx_deploy\.tasks\.Task or DataKind"),
        ("lost", r"task 'shadowing' is not known; .*; install the package that brings it"),
        ("raising", r"entry point 'shade_task\.missing:TASK' cannot be loaded \(ModuleNotFoundError: .*reinstall it"),
        (
            "hues",
            r"'shade_task:TASK' is offered for data\.kind 'hues', and its task 'shading' takes 'shades'; name it in",
        ),
    ],
)
def test_what_is_no_task_is_refused(shades: None, kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_for(Data(kind=kind))


def test_nothing_heavy_is_loaded_to_ask_a_task() -> None:
    code = (
        "import sys; from dlx_deploy.config import Data; from dlx_deploy.tasks import TASKS, find_task\n"
        "for name in TASKS: find_task(name)\n"
        "print([m for m in ('numpy', 'torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def lines_with(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted(files)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line) and not line.lstrip().startswith(('"""', "#", "``"))
    ]


def test_nothing_else_asks_which_task_it_is() -> None:
    names = {path: str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py")}
    files = [path for path, name in names.items() if name.startswith(SHARED) or not name.startswith(ROOMS)]
    assert [line for line in lines_with(ASKED, files) if not line.startswith(EXCEPTED)] == []
    assert len(lines_with(ASKED, [ROOT / name for name in EXCEPTED])) == len(EXCEPTED), "each is an exception still"
    assert lines_with(ASKED, [ROOT / "nn" / "data" / "images.py"]), "it sees what it looks for"


@pytest.mark.parametrize(
    "line",
    [
        "assert isinstance(data.feed, TokenFeed)",
        "if isinstance(spec, ExportSpec):",
        "if isinstance(task.inputs, Images):",
        "if rows.dtype != np.uint8 or rows.ndim != 4:",
        'if data.kind == "digits":',
        'if data.task == "image-classification":',
    ],
)
def test_the_guard_sees_what_asks(line: str) -> None:
    assert ASKED.search(line)


def test_what_judges_reports_and_packs_knows_no_classes() -> None:
    files = [path for path in ROOT.rglob("*.py") if str(path.relative_to(ROOT)).startswith(KNOWING)]
    assert len(files) > 50
    assert lines_with(KNOWS_CLASSES, files) == []
    own = lines_with(KNOWS_CLASSES, list((ROOT / "tasks").glob("*.py")))
    assert any(line.startswith("tasks/paired_gates.py") for line in own), "it sees what it looks for"


def test_a_task_whose_answers_are_no_classes_has_its_own_way_of_distillation_alone() -> None:
    answers = Classes(distillations=())
    task = replace(find_task("image-classification"), answers=answers)
    task.check_training("distill", Distill())
    with pytest.raises(
        ConfigError, match=r"prune\.method is 'dkd'; image-classification has: 'hinton' alone, which is"
    ):
        task.check_training("prune", Prune(method="dkd"))
    with pytest.raises(ConfigError, match=r"distill\.standardize is true; it is for logits of classes"):
        task.check_training("distill", Distill(standardize=True))
