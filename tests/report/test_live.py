"""Live progress: lines without a terminal, a bar with one, the gates' verdicts in both."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.key import KeyDocument
from dlx_deploy.pipeline.manifest import StepEntry
from dlx_deploy.pipeline.plan import Planned
from dlx_deploy.pipeline.stage import Job, Metrics, Stage, Step
from dlx_deploy.report import live
from dlx_deploy.report.live import LiveWatcher, stderr_console


class Nothing(msgspec.Struct, frozen=True):
    pass


def run(job: Job) -> Metrics:
    return {}


STEP = Step("teacher", Stage("teacher", 1, Nothing, (), (), run), Nothing(), {})
ENTRY = StepEntry(
    step="teacher",
    status="ran",
    why="never built",
    key="0" * 64,
    document=KeyDocument(1, "teacher", 1, 0, {}, {}, [], {}, {}, {}),
    outputs={},
    metrics={"top1": 0.98},
    started="",
    seconds=12.3,
)
GATE = GateResult(
    gate="accuracy", metric="top1_drop", value=0.0, bound=0.01, limit=0.02, verdict="pass", text="[all] is well"
)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_build_is_told(terminal: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(live, "_QUIET_INTERVAL_S", 0.0)
    out = io.StringIO()
    with LiveWatcher(Console(file=out, force_terminal=terminal, width=200), "top1") as watch:
        watch.started(Planned(STEP, "run", "params.epochs: 5 → 6"))
        watch.progress(STEP, 3, 10, "loss 0.5")
        watch.waiting(STEP)
        watch.finished(ENTRY, [GATE])
        watch.noted(STEP, "[too] few")
    told = out.getvalue()
    for text in (
        "params.epochs: 5 → 6",
        "another build is running this step",
        "12 s",
        "top1 0.98",
        "[all] is well",
        "[too] few",
    ):
        assert text in told
    assert "gate accuracy: PASS" in told
    assert ("3/10 loss 0.5" in told) is not terminal


def test_accuracy_has_a_place_on_the_line() -> None:
    metrics = {
        "data_share": 0.1,
        "epochs": 3,
        "loss": 0.2,
        "parameters": 9,
        "samples_per_s": 7,
        "validation_top1": 0.75,
    }
    out = io.StringIO()
    with LiveWatcher(Console(file=out, width=200), "top1") as watch:
        watch.finished(msgspec.structs.replace(ENTRY, metrics=metrics), [])
    assert "validation_top1 0.75  loss 0.2  epochs 3  data_share 0.1  parameters 9" in out.getvalue()
    assert "samples_per_s" not in out.getvalue()


def test_what_was_left_out_comes_first_and_none_of_it_does_not() -> None:
    metrics = {"classes": 2, "copies_left_out": 0, "files_left_out": 3, "test_images": 8, "train_images": 13}
    out = io.StringIO()
    with LiveWatcher(Console(file=out, width=200), "top1") as watch:
        watch.finished(msgspec.structs.replace(ENTRY, step="data", metrics=metrics), [])
    assert "files_left_out 3  test_images 8  classes 2  train_images 13" in out.getvalue()
    assert "copies_left_out" not in out.getvalue()


def test_a_reader_that_goes_away_does_not_end_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """``dlx-deploy build 2>&1 | head -1``: rich would exit with 1, and turn stdout away too."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as broken:
        monkeypatch.setattr(sys, "stderr", broken)
        with LiveWatcher(stderr_console(), "top1") as watch:
            for _ in range(3):
                watch.started(Planned(STEP, "run", "never built"))
                watch.finished(ENTRY, [GATE])
        sys.stderr.write("the end of the process is quiet too")
