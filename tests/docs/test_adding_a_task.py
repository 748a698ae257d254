"""docs/adding-a-task.md, followed to the letter: a regression in an installed package of its own."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import Here, Run
from .pages import block, installed_package

PAGE = "adding-a-task.md"
MODULES = {
    "ink_names": "SPAN = 0.25",
    "ink_device": "def open_task",
    "ink_data": "class InkHeader",
    "ink_task": "TASK = Task(",
    "test_ink": "def test_",
}
FEW = [
    "data.limit_train=160",
    "data.limit_test=60",
    "data.calibration_images=32",
    "teacher.epochs=2",
    "distill.arguments={width=0.5}",
    "distill.epochs=1",
    "prune.round_to=4",
    "prune.epochs=1",
    "verify.rounds=60",
    "compile.rounds=60",
    "gate.max_drop=0.9",
    "gate.allow_chance=true",
]
"""Settings of a build that takes seconds."""


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    with installed_package("ink-task", "0.2.0", PAGE, MODULES, tmp_path / "site") as site:
        yield site


def package(site: Path, *arguments: str) -> Run:
    """``python X.dlx …`` in a process of its own, where the task's package is installed."""
    (made,) = Path("dist").glob("*.dlx")
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, str(made), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return Run(done.returncode, done.stdout, done.stderr)


def test_it_is_built_and_its_package_works(installed: Path, here: Here) -> None:
    from PIL import Image

    Path("deploy.toml").write_text(block(PAGE, "toml", "[training]"))
    few = [part for setting in FEW for part in ("--set", setting)]
    built = here("build", "--target", "cpu-x86_64", *few, "--json")
    assert built.code == 0, built.err
    assert '"metric": "closeness"' in built.out
    assert '"ink-task": "0.2"' in here("why", "teacher", *few, "--json").out
    (manifest,) = Path("dist").glob("*.manifest.json")
    gates = {gate["gate"]: gate for gate in json.loads(manifest.read_text())["gates"]}
    assert gates["accuracy"]["metric"] == "closeness_drop"

    assert package(installed, "selftest").code == 0
    Image.new("L", (8, 8), 80).save("grey.png")
    assert 0 <= float(package(installed, "predict", "grey.png").out.split()[1]) <= 1
    (data,) = Path(".dlx/store").glob("*/data/dataset.json")
    judged = package(installed, "verify", "--data", str(data.parent), "--json")
    assert judged.code == 0, judged.err
    verdict = json.loads(judged.out)
    assert verdict["drop"]["value"] == pytest.approx(gates["accuracy"]["value"], abs=1e-3)
    assert (verdict["drop"]["samples"], verdict["changed"]) == (60, 0)
    again = here("verify", *map(str, Path("dist").glob("*.dlx")), "--data", "ink-digits", "--json")
    assert json.loads(again.out)["drop"] == verdict["drop"]

    refused = package(installed, "predict", "grey.png", "--top", "3")
    assert (refused.code, refused.err.splitlines()[-1]) == (
        2,
        "error: top is 3, out None; an answer is one number: leave both out",
    )
    elsewhere = package(Path("nowhere"), "selftest")
    assert elsewhere.code == 2
    assert "of a package that is installed here and offers it (dlx_deploy.device_tasks)" in elsewhere.err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.shift_px=1", "teacher.shift_px is 1; it changes how much ink there is: set 0"),
        ("distill.temperature=2.0", "distill.temperature is 2.0; it is for classes, and ink is a number: leave it out"),
        ("teacher.loss=cross-entropy", "teacher.loss is 'cross-entropy'; ink-regression has: 'huber'"),
        ("data.height=9", "data.height is 9; the ink-digits are 8 x 8: leave it out"),
        ("data.path=here", "data.kind 'ink-digits' takes none: it is scikit-learn's digits"),
    ],
)
def test_a_plan_refuses_what_it_cannot_do(installed: Path, here: Here, override: str, message: str) -> None:
    Path("deploy.toml").write_text(block(PAGE, "toml", "[training]"))
    planned = here("plan", "--set", override)
    assert planned.code == 2
    assert message in planned.err


def test_a_plan_loads_nothing_heavy(installed: Path) -> None:
    code = (
        "import sys, ink_task\n"
        "print([name for name in ('numpy', 'torch', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("group", ["tasks", "headers", "device_tasks"])
def test_an_entry_point_that_is_forgotten_is_named(installed: Path, here: Here, group: str) -> None:
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    parts = points.read_text().split("[")
    points.write_text("[".join(part for part in parts if not part.startswith(f"dlx_deploy.{group}]")))
    Path("deploy.toml").write_text(block(PAGE, "toml", "[training]"))
    planned = here("plan")
    assert planned.code == 2
    assert f"offers no such name in the entry points dlx_deploy.{group}; add ink-regression there" in planned.err


def test_its_own_tests_pass(installed: Path) -> None:
    own = importlib.import_module("test_ink")
    tests = [value for name, value in vars(own).items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()
