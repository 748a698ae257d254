"""A stage that another process can run: it writes what it was given, and can wait for others, fail or die."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from dlx_deploy.errors import DataError
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.stage import Job, Metrics, Output, Stage, Step


class Piece(msgspec.Struct, frozen=True):
    name: str
    log: str = ""
    """A folder: each piece leaves its name there when it begins."""
    meets: Sequence[str] = ()
    trouble: str = ""
    puts: str = ""
    """A file that goes to the device."""


def run(job: Job[Piece]) -> Metrics:
    piece = job.params
    if piece.log:
        Path(piece.log, piece.name).write_text(str(os.getpid()))
    deadline = time.monotonic() + 60
    while not all(Path(piece.log, other).exists() for other in piece.meets):
        if time.monotonic() > deadline:
            raise DataError("nobody came")
        time.sleep(0.01)
    job.progress(1, 2, "half")
    if piece.puts:
        assert job.device is not None
        job.device.put(Path(piece.puts))
    if piece.trouble == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if piece.trouble:
        logging.getLogger("dlx_deploy.workbench").warning("about to fail: %s", piece.trouble)
        raise ValueError(piece.trouble) if piece.trouble == "value" else DataError(piece.trouble)
    (job.out / "out.txt").write_text(piece.name + "".join(sorted(p.read_text() for p in job.inputs.values())))
    return {"length": float(len(piece.name))}


def refuse(setup: Any) -> None:
    raise DataError("rehearsed in vain")


def step(name: str, *after: str, timed: bool = False, gates: Any = None, rehearse: Any = None, **params: Any) -> Step:
    tools = params.pop("tools", ("msgspec",))
    timing = {"measures_host": timed, "times_host": timed}
    stage = Stage("piece", 1, Piece, after, ("out.txt",), run, rehearse=rehearse, tools=tools, **timing)
    inputs = {one: Output(one, "out.txt") for one in after}
    return Step(name, stage, Piece(name, **params), inputs, gates=gates)


def build(*steps: Step, name: str = "board", device: Any = None) -> Build:
    return Build(name, None, list(steps), {}, device=device)
