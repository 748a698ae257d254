"""A process that works on steps for the one that builds; ``pool`` is the other end.

It writes into the folder that it is given and says how that went; locks, records, gates and the manifest are the
builder's. It ends with the builder, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import logging
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from dlx_deploy.errors import DlxError, StageFailed
from dlx_deploy.pipeline.allocator import release_freed
from dlx_deploy.pipeline.memory import with_peak
from dlx_deploy.pipeline.stage import Job, Metrics, Stage
from dlx_deploy.progress import silent
from dlx_deploy.runtime.signals import Terminated, interruptible

__all__ = ["LARGE", "Done", "Failed", "Said", "packed", "packed_stage", "serve"]

LARGE = frozenset({"torch"})
"""Libraries that stay in the memory of a process that has imported them, with some hundred MiB."""
_PATIENCE_S = 3.0
"""So long it may take to tidy up after it was told to stop."""
_TELL_EVERY_S = 0.1
_SET_PDEATHSIG = 1
"""Of Linux's ``prctl``."""


@dataclass(frozen=True)
class Said:
    """How far the step is; or, with ``level``, what was logged under the name ``logger``."""

    done: float = 0.0
    total: float = 0.0
    text: str = ""
    level: int = 0
    logger: str = ""


@dataclass(frozen=True)
class Done:
    """The step's metrics. ``modules``: how many the worker has imported by now; ``holds``: those of ``LARGE``.

    ``peak_memory_mib``: what the worker had in memory meanwhile, at most; ``None``: nobody knows.
    """

    metrics: Metrics
    modules: int = 0
    holds: frozenset[str] = frozenset()
    peak_memory_mib: float | None = None


@dataclass(frozen=True)
class Failed:
    """What the step failed with, and where, for whoever looks for our own faults."""

    error: Exception
    trace: str = ""
    modules: int = 0
    holds: frozenset[str] = frozenset()


def packed_stage(stage: Stage[Any], job: Job[msgspec.Struct]) -> bytes | None:
    """``stage.run(job)`` as bytes for another process; ``None`` where it cannot go there: a function in a function."""
    return packed(stage.run, dataclasses.replace(job, progress=silent))


def packed(call: Callable[[Any], Metrics], argument: object) -> bytes | None:
    """``call(argument)`` as bytes, likewise."""
    try:
        return pickle.dumps((call, argument))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


def serve(handle: int, builder: int) -> None:
    """Do what comes over the connection ``handle`` from the process ``builder``, until that closes it or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(builder)
    connection = Connection(handle)
    root = logging.getLogger()
    root.handlers = [_Forwarding(connection)]
    with contextlib.suppress(EOFError, OSError, Terminated), interruptible():
        while True:
            logging.getLogger("dlx_deploy").setLevel(connection.recv())
            answer = _answer(connection)
            try:
                connection.send(answer)
            except (pickle.PicklingError, AttributeError, TypeError):  # of an exception's own fields
                assert isinstance(answer, Failed)
                error = StageFailed(f"{type(answer.error).__name__}: {answer.error}")
                connection.send(dataclasses.replace(answer, error=error))
    sys.stderr.flush()
    os._exit(0)  # threads of libraries would be waited for


def _answer(connection: Connection) -> Done | Failed:
    try:
        release_freed()
        call, argument = connection.recv()  # what packed gave
        if isinstance(argument, Job):
            argument = dataclasses.replace(argument, progress=_Telling(connection))
        metrics, peak_mib = with_peak(call, argument)
        return Done(metrics, len(sys.modules), LARGE & sys.modules.keys(), peak_mib)
    except Exception as e:
        import traceback

        # Errors of ours say it all in their message.
        trace = "" if isinstance(e, DlxError) and e.__cause__ is None else "".join(traceback.format_exception(e))
        e.__traceback__ = e.__cause__ = e.__context__ = None
        return Failed(e, trace, len(sys.modules), LARGE & sys.modules.keys())


class _Telling:
    """Progress over a connection, some ten times a second at most."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._last = connection, 0.0

    def __call__(self, done: float, total: float, text: str = "") -> None:
        if done >= total or time.monotonic() - self._last >= _TELL_EVERY_S:
            self._last = time.monotonic()
            self._connection.send(Said(done, total, text))


class _Forwarding(logging.Handler):
    """Gives what is logged to the builder, whose handlers say it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            self._connection.send(Said(text=record.getMessage(), level=record.levelno, logger=record.name))


def _end_with(builder: int) -> None:
    """See to it that this process is gone soon after ``builder`` is, as nobody holds its step's lock any more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGTERM)

    def watch() -> None:
        while os.getppid() == builder:
            time.sleep(0.2)
        time.sleep(_PATIENCE_S)  # for SIGTERM to have stopped what the step itself has started
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
