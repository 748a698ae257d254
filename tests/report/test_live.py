"""Live progress: lines without a terminal, a bar with one, the gates' verdicts in both."""

from __future__ import annotations

import dataclasses
import io
import os
import sys

import msgspec
import pytest
from rich.console import Console

from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.key import KeyDocument
from dlx_deploy.pipeline.manifest import StepEntry
from dlx_deploy.pipeline.plan import Planned
from dlx_deploy.pipeline.stage import Job, Metrics, Stage, Step
from dlx_deploy.report.live import LiveWatcher
from dlx_deploy.report.screen import Screen, stderr_console


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
    peak_memory_mib=449.9,
)
GATE = GateResult(
    gate="accuracy", metric="top1_drop", value=0.0, bound=0.01, limit=0.02, verdict="pass", text="[all] is well"
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("target", ["", "rpi4"])
def test_a_build_is_told(terminal: bool, target: str) -> None:
    out = io.StringIO()
    with Screen(Console(file=out, force_terminal=terminal, width=200), Clock()) as screen:
        watch = LiveWatcher(screen, "top1", target)
        watch.started(Planned(STEP, "run", "params.epochs: 5 → 6"))
        watch.progress(STEP, 3, 10, "loss 0.5")
        watch.waiting(STEP)
        watch.finished(ENTRY, [GATE])
        watch.noted(STEP, "[too] few")
        watch.progress(STEP, 4, 10, "of a step that is not drawn any more")
    told = out.getvalue()
    for text in (
        "params.epochs: 5 → 6",
        "another build is running this step",
        "12 s",
        "  450 MiB",
        "top1 0.98",
        "[all] is well",
        "[too] few",
    ):
        assert text in told
    assert "gate accuracy: PASS" in told
    assert (told.count("[rpi4]") >= 5) is bool(target)
    assert "not drawn" not in told


def test_without_a_terminal_a_line_comes_now_and_then() -> None:
    out, clock = io.StringIO(), Clock()
    other = dataclasses.replace(STEP, name="compile")
    with Screen(Console(file=out, width=200), clock) as screen:
        watch = LiveWatcher(screen, "top1")
        watch.started(Planned(STEP, "run", "never built"))
        watch.started(Planned(other, "run", "never built"))
        watch.progress(STEP, 0, 10, "")
        for _ in range(12):
            clock.now += 2
            watch.progress(STEP, (clock.now - 100) / 10, 10, "loss 0.5")
            screen.tick()
        watch.ended(STEP, True)  # it waits to be told of, and is not heard of before
        for _ in range(300):
            clock.now += 2
            screen.tick()
    lines = [text.strip() for text in out.getvalue().splitlines() if not text.startswith("▸")]
    assert lines[:4] == [
        "teacher            1/10 loss 0.5; 10 s, about 1 min 30 s left",
        "compile            still running; 10 s",
        "teacher            2/10 loss 0.5; 20 s, about 1 min 20 s left",
        "compile            still running; 20 s",
    ]
    assert all(text.startswith("compile") for text in lines[4:])
    assert 10 < len(lines[4:]) < 30  # ten minutes


def test_what_is_looked_at_before_anything_runs_has_a_row() -> None:
    out, clock = io.StringIO(), Clock()
    with Screen(Console(file=out, width=200), clock) as screen:
        watch = LiveWatcher(screen, "top1")
        watch.rehearsing(0, 0)  # nothing to look at
        for i in (0, 1, 2):
            watch.rehearsing(i, 2, "what can be known of teacher before anything runs" if i < 2 else "")
            clock.now += 11
            screen.tick()
    assert out.getvalue().splitlines() == [
        "  rehearsal          what can be known of teacher before anything runs, 1 of 2; 11 s",
        "  rehearsal          what can be known of teacher before anything runs, 2 of 2; 22 s",
    ]


def test_what_is_begun_is_not_counted_as_done() -> None:
    out, clock = io.StringIO(), Clock()
    with Screen(Console(file=out, width=200), clock) as screen:
        watch = LiveWatcher(screen, "top1")
        watch.started(Planned(STEP, "run", "never built"))
        clock.now += 11
        watch.progress(STEP, 0.9, 1, "loss 0.5")
        screen.tick()
    assert "teacher            0/1 loss 0.5; 11 s" in out.getvalue()


def test_a_row_goes_with_its_work() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, force_terminal=True, width=200), Clock()) as screen:
        watch = LiveWatcher(screen, "top1")
        watch.started(Planned(STEP, "run", "never built"))
        assert "teacher" in drawn(screen)
        with screen.paused():
            assert drawn(screen) == ""
        watch.ended(STEP, True)
        assert "done" in drawn(screen)
        watch.ended(STEP, False)
        assert drawn(screen) == ""


def drawn(screen: Screen) -> str:
    out = io.StringIO()
    if screen._bars is not None:
        Console(file=out, width=200).print(screen._bars.get_renderable())
    return out.getvalue()


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
    with Screen(Console(file=out, width=200)) as screen:
        LiveWatcher(screen, "top1").finished(msgspec.structs.replace(ENTRY, metrics=metrics), [])
    assert "validation_top1 0.75  loss 0.2  epochs 3  data_share 0.1  parameters 9" in out.getvalue()
    assert "samples_per_s" not in out.getvalue()


def test_what_was_left_out_comes_first_and_none_of_it_does_not() -> None:
    metrics = {"classes": 2, "copies_left_out": 0, "files_left_out": 3, "test_images": 8, "train_images": 13}
    out = io.StringIO()
    with Screen(Console(file=out, width=200)) as screen:
        LiveWatcher(screen, "top1").finished(msgspec.structs.replace(ENTRY, step="data", metrics=metrics), [])
    assert "files_left_out 3  test_images 8  classes 2  train_images 13" in out.getvalue()
    assert "copies_left_out" not in out.getvalue()


def test_a_reader_that_goes_away_does_not_end_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """``dlx-deploy build 2>&1 | head -1``: rich would exit with 1, and turn stdout away too."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as broken:
        monkeypatch.setattr(sys, "stderr", broken)
        with Screen(stderr_console()) as screen:
            watch = LiveWatcher(screen, "top1")
            for _ in range(3):
                watch.started(Planned(STEP, "run", "never built"))
                watch.finished(ENTRY, [GATE])
        sys.stderr.write("the end of the process is quiet too")
