"""The processes that work on steps, seen from the one that builds: each starts when it is first needed, and is kept."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import wait

from dlx_deploy.errors import StageFailed
from dlx_deploy.pipeline.stage import Metrics
from dlx_deploy.pipeline.worker import Done, Failed, Said

__all__ = ["Pool", "Worker"]

_PATIENCE_S = 3.0
"""So long a worker may take to tidy up after it was told to stop."""


class Worker:
    """One worker; it starts at once and has nothing to do.

    ``modules``: how many it has imported; ``holds``: those of ``worker.LARGE``.
    """

    def __init__(self) -> None:
        self.modules = 0
        self.holds: frozenset[str] = frozenset()
        self.connection, theirs = Pipe()
        # -c and not -m: that would look for modules in the working folder, where a user's data.py may lie.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from dlx_deploy.pipeline.worker import serve; "
            f"serve({theirs.fileno()}, {os.getpid()})"
        )
        with _interrupts_held():  # from its first moment on Ctrl-C is the builder's alone
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=2
            )
        theirs.close()

    def give(self, task: bytes) -> None:
        """Have it do what ``packed`` gave; ``listen`` says how that goes."""
        level = logging.getLogger("dlx_deploy").getEffectiveLevel()
        with contextlib.suppress(OSError):  # it has died: listen says how
            self.connection.send(level)
            self.connection.send_bytes(task)

    def listen(self) -> Said | Done | Failed:
        """What it has to say, once its ``connection`` has something."""
        try:
            said: Said | Done | Failed = self.connection.recv()
        except (EOFError, OSError):
            return Failed(StageFailed(self._end()))
        if isinstance(said, Done | Failed):
            self.modules, self.holds = said.modules, said.holds
        return said

    def tell_to_stop(self) -> None:
        """Tell it to end, whatever it does; ``stop`` waits for that."""
        self.connection.close()
        self._process.terminate()

    def stop(self) -> None:
        """End it, whatever it does."""
        self.tell_to_stop()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _end(self) -> str:
        try:
            code = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            return "the process that ran it says no more"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"the process that ran it {how}; where memory ran out, --jobs 1 takes less"


class Pool:
    """All workers of a build, busy and idle."""

    def __init__(self) -> None:
        self._busy: list[Worker] = []
        self._idle: list[Worker] = []

    def give(self, task: bytes) -> Worker:
        """The worker that does what ``packed`` gave: of the idle ones who has imported most begins soonest."""
        worker = max(self._idle, key=lambda one: one.modules) if self._idle else Worker()
        self._idle = [one for one in self._idle if one is not worker]
        self._busy.append(worker)
        worker.give(task)
        return worker

    def heard(
        self, timeout_s: float | None = None, workers: Sequence[Worker] | None = None
    ) -> Sequence[tuple[Worker, Said | Done | Failed]]:
        """What ``workers``, or all that are busy, have to say, as soon as one has, or after ``timeout_s`` nothing.

        Who is done or failed is idle from then on.
        """
        asked = {worker.connection: worker for worker in workers or self._busy}
        spoken = wait(list(asked), timeout_s)
        said = [(worker, worker.listen()) for connection, worker in asked.items() if connection in spoken]
        for worker, what in said:
            if isinstance(what, Done | Failed):
                self._busy.remove(worker)
                if isinstance(what, Failed) and not what.modules:
                    worker.stop()  # it has died
                else:
                    self._idle.append(worker)
        return said

    def finish(self, task: bytes) -> Metrics:
        """What the call gives that ``packed`` gave, once it is done; nobody else is listened to meanwhile.

        Raises:
            Exception: it failed with that, or its process ended.
        """
        worker = self.give(task)
        while True:
            for _, said in self.heard(workers=[worker]):
                if isinstance(said, Done):
                    return said.metrics
                if isinstance(said, Failed):
                    raise said.error
                if said.level:
                    logging.getLogger(said.logger).log(said.level, "%s", said.text)

    def let_go(self, needed: Collection[str]) -> None:
        """End the idle workers that hold a large library which is not ``needed`` any more."""
        if useless := [worker for worker in self._idle if worker.holds - set(needed)]:
            self.stop(useless)

    def stop(self, workers: Sequence[Worker] | None = None) -> None:
        """End ``workers``, or all, and what they do."""
        ended = [*self._busy, *self._idle] if workers is None else workers
        for worker in ended:
            worker.tell_to_stop()
        for worker in ended:
            worker.stop()
        self._busy = [worker for worker in self._busy if worker not in ended]
        self._idle = [worker for worker in self._idle if worker not in ended]


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # pragma: no cover (Windows)
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
