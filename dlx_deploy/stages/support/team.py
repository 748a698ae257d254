"""One build on several processes: the first runs the pipeline, the others join in where a stage trains.

Workers get each training job over the process group and run the same stage, into a folder that is thrown away; the
collectives inside it do the rest. So the first process alone writes the store. The group is either started here
(``--processes``) or joined, where ``torchrun`` or ``accelerate launch`` started this program on every machine.
"""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from dlx_deploy.errors import ConfigError, DlxError, StageFailed
from dlx_deploy.pipeline.stage import Job, Metrics, Stage
from dlx_deploy.runtime.scratch import Scratch
from dlx_deploy.runtime.terminal import talk
from dlx_deploy.runtime.words import line

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Team", "count_devices", "is_worker", "launched_processes", "local_processes", "run_worker", "team_for"]

P = TypeVar("P", bound=msgspec.Struct)
Message = dict[str, Any]
"""A stage's name, its parameters as plain values, and its job."""

IDLE = datetime.timedelta(days=7)
"""So long a worker waits for its next job: other stages run in the first process alone."""
PASSING_S = 20.0
"""So long a worker that closed its connection may take to be gone: its sockets close before the process has ended."""
INIT = "DLX_DEPLOY_TEAM"
"""The environment variable that tells a worker where the group meets."""


def launched_processes() -> int:
    """How many processes a launcher (torchrun, accelerate launch) started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_processes(asked: int) -> int:
    """How many processes share this machine: those of a launcher, or those that were ``asked`` for."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", asked))


def is_worker() -> bool:
    """Whether a launcher started this process as another than the first."""
    return launched_processes() > 1 and int(os.environ.get("RANK", "0")) > 0


def count_devices() -> tuple[int, str]:
    """What processes of this machine can be spread over, GPUs or else cores: how many, and their name."""
    from dlx_deploy.runtime.machine import available_cores

    gpus = Path("/proc/driver/nvidia/gpus")
    count = len(list(gpus.iterdir())) if gpus.is_dir() else 0
    return (count, "GPUs") if count else (available_cores(), "cores")


def team_for(processes: int) -> Team | None:
    """The team that ``--processes`` or a launcher asks for; ``None`` for one process.

    Raises:
        ConfigError: more processes than there are GPUs or, without one, cores; or a number beside a launcher's.
    """
    launched = launched_processes()
    if launched > 1:
        if processes > 1:
            raise ConfigError(f"--processes is {processes}, and a launcher started {launched}; leave --processes out")
        return Team(launched, launched=True)
    if processes < 2:
        return None
    there, noun = count_devices()
    if processes > there:
        raise ConfigError(f"--processes is {processes}; this machine has {there} {noun}: one process for each at most")
    return Team(processes)


class Team:
    """The first process and its ``processes - 1`` workers; they start when the first training stage does."""

    def __init__(self, processes: int, launched: bool = False) -> None:
        self.processes, self._broken = processes, False
        self._workers: list[subprocess.Popen[bytes]] = []
        self._talk = Scratch("dlx-deploy-team")
        self._group: ProcessGroup | None = None
        if launched:
            self._group = _join(None, int(os.environ["RANK"]), processes)

    def run(self, stage: Stage[P], job: Job[P]) -> Metrics:
        """What ``stage.run(job)`` gives, all processes taking part.

        Raises:
            StageFailed: a worker died, or never came. Else what the stage raises.
        """
        group = self._group or self._start()
        try:
            _send(group, _message(stage, job))
            return stage.run(job)
        except RuntimeError as e:
            dead = self._dead(PASSING_S if _lost_a_peer(e) else 0)
            if not dead:
                raise
            raise StageFailed(f"a worker stopped; {'; '.join(dead)}") from e

    def close(self) -> None:
        """Let the workers go."""
        if self._group is not None:
            _leave(self._group, silent=self._broken)
        for worker in self._workers:
            try:
                worker.wait(5)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self._group, self._workers = None, []
        self._talk.close()

    def abandon(self) -> None:
        """Stop the workers at once: the first process cannot go on. Those of a launcher see it leave."""
        self._broken = True
        for worker in self._workers:
            worker.kill()
            worker.wait()

    def _start(self) -> ProcessGroup:
        meeting = f"file://{self._talk.path}/meeting"
        for rank in range(1, self.processes):
            environment = {**os.environ, **_place(rank, self.processes), INIT: meeting}
            with open(f"{self._talk.path}/{rank}.log", "wb") as log:
                command = [sys.executable, "-m", "dlx_deploy.stages.support.team"]
                self._workers.append(subprocess.Popen(command, env=environment, stderr=log, stdout=log))
        os.environ.update(_place(0, self.processes))
        self._await_workers()
        self._group = _join(meeting, 0, self.processes)
        return self._group

    def _await_workers(self) -> None:
        """Wait until each is about to join: from there on gloo waits, for half an hour and without a look at them.

        Raises:
            StageFailed: one ended before.
        """
        import torch  # noqa: F401  # while they import it too

        ready = [self._talk.path / f"{rank}.ready" for rank in range(1, self.processes)]
        while not all(path.exists() for path in ready):
            if dead := self._dead(0):
                raise StageFailed(f"a worker stopped; {'; '.join(dead)}")
            time.sleep(0.02)

    def _dead(self, patience_s: float) -> list[str]:
        """Who ended, and how; waits up to ``patience_s`` for the first, as its connection breaks before it is gone."""
        deadline = time.monotonic() + patience_s
        while not (dead := [i for i, w in enumerate(self._workers) if w.poll() is not None]):
            if time.monotonic() >= deadline:
                return []
            time.sleep(0.05)
        return [f"process {i + 1}: {self._said(i)}" for i in dead]

    def _said(self, worker: int) -> str:
        """The last line that a worker wrote, after the signal that ended it."""
        text = (self._talk.path / f"{worker + 1}.log").read_text(encoding="utf-8", errors="replace")
        line = next((line for line in reversed(text.splitlines()) if line.strip()), "no output")
        code = self._workers[worker].returncode
        return f"{signal.Signals(-code).name}, {line}" if code < 0 else line


def run_worker(meeting: str | None = None) -> int:
    """Be a worker: run what the first process sends until it has no more; the exit code."""
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if meeting is not None:
        import torch  # noqa: F401  # what may fail here fails before the others wait

        Path(meeting.removeprefix("file://")).with_name(f"{rank}.ready").touch()
    group = _join(meeting, rank, processes)
    try:
        while (message := _receive(group)) is not None:
            _run(message)
    except DlxError as e:
        talk(f"error: {line(str(e))}")
        return e.exit_code
    _leave(group, silent=True)
    return 0


def _run(message: Message) -> None:
    from dlx_deploy.stages.registry import load_stage

    stage = load_stage(message["stage"])
    with Scratch("dlx-deploy-worker") as folder:
        params = msgspec.convert(message["params"], stage.params)
        stage.run(replace(message["job"], params=params, out=folder))


def _message(stage: Stage[P], job: Job[P]) -> Message:
    from dlx_deploy.progress import silent

    unset: Any = None  # the parameters travel beside the job, as plain values
    plain = replace(job, params=unset, progress=silent, logs=None, device=None)
    return {"stage": stage.name, "params": msgspec.to_builtins(job.params), "job": plain}


def _place(rank: int, processes: int) -> dict[str, str]:
    """What a launcher would say to process ``rank`` of one machine."""
    size = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", **size}


def _join(meeting: str | None, rank: int, processes: int) -> ProcessGroup:
    """The group over which jobs are sent; joins the default group for the collectives of training first."""
    import torch
    from torch import distributed

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))
    distributed.init_process_group(backend, init_method=meeting or "env://", rank=rank, world_size=processes)
    group = distributed.new_group(backend="gloo", timeout=IDLE)
    assert isinstance(group, distributed.ProcessGroup)  # every process is a member
    return group


def _send(group: ProcessGroup, message: Message | None) -> None:
    from torch import distributed

    distributed.broadcast_object_list([message], src=0, group=group)


def _receive(group: ProcessGroup) -> Message | None:
    from torch import distributed

    box = [None]
    try:
        distributed.broadcast_object_list(box, src=0, group=group)
    except RuntimeError as e:  # what torch raises where the other end is closed
        raise StageFailed("the first process of the team is gone") from e
    return box[0]


def _lost_a_peer(error: RuntimeError) -> bool:
    """Whether a collective failed, and not the network itself: gloo and NCCL name themselves or the connection."""
    text = str(error).lower()
    return any(word in text for word in ("gloo", "nccl", "connection", "peer", "socket"))


def _leave(group: ProcessGroup, silent: bool) -> None:
    """Tell the others that there is no more work, unless ``silent``, and leave."""
    from torch import distributed

    if not silent:
        _send(group, None)
    distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(run_worker(os.environ[INIT]))
