"""Runs ``dlx-deploy`` and kills its own process at one moment of one step: kill_at.py STEP MOMENT ARGUMENTS…

By SIGKILL, or by the signal that the environment variable KILL_WITH names.

MOMENT: ``start`` (its work folder is there, nothing in it), ``epoch`` (after the checkpoint of its first epoch in this
process), ``written`` (outputs and record are there, not yet visible), ``visible`` (renamed, manifest not yet updated).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from dlx_deploy import cli
from dlx_deploy.pipeline import execution
from dlx_deploy.pipeline import store as store_module
from dlx_deploy.pipeline.plan import Planned
from dlx_deploy.report.live import LiveWatcher

STEP = MOMENT = current = ""


def die() -> None:
    os.kill(os.getpid(), getattr(signal, os.environ.get("KILL_WITH", "SIGKILL")))


started = LiveWatcher.started
settle = store_module._settle
job = execution._job
entry = execution._entry


def note_start(self: LiveWatcher, planned: Planned) -> None:
    global current
    current = planned.step.name
    started(self, planned)


def make_job(planned: Planned, *rest: Any) -> Any:
    made, step = job(planned, *rest), planned.step
    if step.name == STEP and MOMENT == "start":
        die()
    if step.name == STEP and MOMENT == "epoch":
        from dlx_deploy.nn.training import checkpoints

        write = checkpoints.write

        def write_and_die(*arguments: Any) -> None:
            write(*arguments)
            die()

        checkpoints.write = write_and_die
    return made


def settle_and_die(folder: Path) -> None:
    settle(folder)
    if current == STEP and MOMENT == "written":
        die()


def make_entry(record: Any, step: Any, *rest: Any) -> Any:
    if step.name == STEP and MOMENT == "visible":
        die()
    return entry(record, step, *rest)


LiveWatcher.started = note_start  # type: ignore[method-assign]
store_module._settle = settle_and_die
execution._job = make_job
execution._entry = make_entry


if __name__ == "__main__":
    STEP, MOMENT, *arguments = sys.argv[1:]
    sys.exit(cli.run(arguments))
