"""kill -9 at any moment, build again: it goes on, and ends with the bytes of a build that was never killed."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from .conftest import PACKAGE, dlx, tiny
from .test_build import EVALUATED, STEPS
from .warm import Warm, run_warm

SCRIPT = Path(__file__).parent / "kill_at.py"
TRAINING = ["teacher", "distill", "prune"]
ORDER = ["start", "epoch", "written", "visible"]


def in_order(moments: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(moments, key=lambda m: (STEPS.index(m[0]), ORDER.index(m[1])))


TWO = {"export-teacher", "distill"}
EPOCHS = [(step, "epoch") for step in TRAINING]
OF_EACH_STAGE = [
    step for step in STEPS if step not in ("export-student", "export-pruned", *EVALUATED[1:])
]  # one export and one evaluation of several
ONCE = in_order(
    [*EPOCHS, *((step, "written") for step in OF_EACH_STAGE), ("quantize", "start"), ("quantize", "visible")]
)
ALWAYS = in_order([*EPOCHS, *((step, moment) for step in STEPS for moment in ORDER if moment != "epoch")])


def copy_without(built: Path, folder: Path, steps: set[str]) -> None:
    """The store of ``built``, but for what these steps made. What they make again is the same if no other step runs:
    the digests of its inputs are in a step's key."""
    shutil.copytree(built / ".dlx" / "store", folder / ".dlx" / "store")
    for entry in json.loads((built / PACKAGE).with_suffix(".manifest.json").read_text())["steps"]:
        if entry["step"] in steps:
            shutil.rmtree(folder / ".dlx" / "store" / entry["key"])


def killed_at(folder: Path, step: str, moment: str) -> int:
    """How a build ended that kills itself then."""
    return run_warm([SCRIPT, step, moment, "build", *tiny()], folder).returncode


def finish(folder: Path) -> dict[str, str]:
    """Build to the end: step → ran or cached."""
    done = dlx("build", "--jobs", "1", *tiny(), cwd=folder)
    assert done.code == 0, done.err
    manifest = json.loads((folder / PACKAGE).with_suffix(".manifest.json").read_text())
    return {entry["step"]: entry["status"] for entry in manifest["steps"]}


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / PACKAGE).read_bytes()).hexdigest()


@pytest.mark.parametrize("moments", [ONCE, pytest.param(ALWAYS, marks=pytest.mark.slow)], ids=["once", "always"])
def test_killed_in_every_stage(built: Path, tmp_path: Path, moments: list[tuple[str, str]]) -> None:
    """One build, killed at moment after moment, each time going on from the last."""
    assert {step for step, _ in moments} >= set(OF_EACH_STAGE)
    codes = {moment: killed_at(tmp_path, *moment) for moment in moments}
    assert set(codes.values()) == {-signal.SIGKILL}, codes
    finish(tmp_path)
    assert digest(tmp_path) == digest(built)
    assert not list((tmp_path / ".dlx" / "store").glob(".work-*"))


@pytest.mark.parametrize("step", ["distill", *(pytest.param(s, marks=pytest.mark.slow) for s in ("teacher", "prune"))])
def test_training_goes_on_from_its_last_epoch(built: Path, tmp_path: Path, step: str) -> None:
    copy_without(built, tmp_path, {step})
    assert killed_at(tmp_path, step, "epoch") == -signal.SIGKILL
    (status,) = json.loads(dlx("status", "--json", cwd=tmp_path).out).values()
    assert status["status"] == "killed"
    checkpoints = [f for f in (tmp_path / ".dlx" / "checkpoints").rglob("*") if f.is_file()]
    assert checkpoints
    assert all(f.stat().st_size > 0 for f in checkpoints)
    assert {name for name, status in finish(tmp_path).items() if status == "ran"} == {step}
    assert digest(tmp_path) == digest(built)


def test_terminated_loses_nothing(tmp_path: Path) -> None:
    done = run_warm([SCRIPT, "teacher", "epoch", "build", *tiny()], tmp_path, KILL_WITH="SIGTERM")
    assert done.returncode == 143
    assert "interrupted by SIGTERM; finished stages are kept: build again to go on" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / ".dlx" / "store").glob(".work-*"))
    assert [f for f in (tmp_path / ".dlx" / "checkpoints").rglob("*") if f.is_file()]  # the epoch before is kept
    (manifest,) = (tmp_path / ".dlx" / "builds").iterdir()
    ended = json.loads(manifest.read_text())
    assert (ended["status"], [s["step"] for s in ended["steps"]]) == ("interrupted", ["data"])


def test_killed_with_two_steps_at_work(built: Path, tmp_path: Path) -> None:
    """Two that rest on the teacher alone; ``built`` was built one step after another."""
    copy_without(built, tmp_path, TWO)
    process = Warm(["build", "--jobs", "2", *tiny()], tmp_path)
    store = tmp_path / ".dlx" / "store"
    while len(list(store.glob(".work-*"))) < 2:
        assert process.poll() is None, "it ended and never had two steps at work"
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert {step for step, status in finish(tmp_path).items() if status == "ran"} == TWO
    assert digest(tmp_path) == digest(built)
    assert not list(store.glob(".work-*"))


@pytest.mark.slow
def test_killed_by_the_clock(built: Path, tmp_path: Path) -> None:
    """Killed from outside, ever later after its start, until it comes through."""
    kills = 0
    while True:
        process = Warm(["build", *tiny()], tmp_path)
        deadline = time.monotonic() + 1.0 + 0.37 * kills
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
    assert process.returncode == 0
    assert kills > 3
    assert digest(tmp_path) == digest(built)
