"""Runs ``dlx-deploy`` and kills its own process at one moment of one step: kill_at.py STEP MOMENT ARGUMENTS…

By SIGKILL, or by the signal that the environment variable KILL_WITH names. Without arguments it takes jobs from stdin,
a JSON line each: ``[folder, step, moment, arguments]``; every one runs in a process forked from this one, which has
imported what stages import and computed nothing, and its exit code is a line on stdout.

MOMENT: ``start`` (its work folder is there, nothing in it), ``epoch`` (after the checkpoint of its first epoch in this
process), ``written`` (outputs and record are there, not yet visible), ``visible`` (renamed, manifest not yet updated).
"""

from __future__ import annotations

import importlib
import json
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
HEAVY = (
    *("torch", "torchvision", "torch._dynamo", "torch.onnx", "torch.onnx._internal.exporter._core"),
    *("onnx", "onnxscript", "onnxruntime", "sklearn.datasets", "accelerate"),
    *(f"dlx_deploy.nn.{name}" for name in ("training.loop", "export.network", "pruning.channels")),
    *(f"dlx_deploy.graph.{name}" for name in ("quantization", "execution.evaluation")),
)


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


def run(step: str, moment: str, arguments: list[str]) -> int:
    """The exit code, where the moment does not come."""
    global STEP, MOMENT
    STEP, MOMENT = step, moment
    return cli.run(arguments)


def serve() -> None:
    for name in HEAVY:
        importlib.import_module(name)
    for line in sys.stdin:
        folder, step, moment, arguments = json.loads(line)
        pid = os.fork()
        if not pid:
            os.chdir(folder)
            silent = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silent, stream)
            os._exit(run(step, moment, arguments))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if len(sys.argv) > 1:
    sys.exit(run(sys.argv[1], sys.argv[2], sys.argv[3:]))
serve()
