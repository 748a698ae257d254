"""One process of ssh: what it is fed, what it says, how long it may be silent, and that none is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import IO

__all__ = ["Ended", "Silent", "ended", "run_process", "start_process"]

LOOK_S = 0.5
"""How often a process that goes on is looked at."""


class Silent(Exception):
    """Raised where nothing moved for as long as a process may be silent; it has been ended."""


@dataclass(frozen=True)
class Ended:
    """How a process ended and all that it said; ``sent``: bytes that it took."""

    exit_code: int
    stdout: bytes
    stderr: str
    sent: int


@dataclass
class _Pipes:
    """The three pipes of a process, each moved by a thread; ``moved``: when the last byte passed."""

    process: subprocess.Popen[bytes]
    heard: Callable[[str], None]
    out: list[bytes] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    sent: int = 0
    moved: float = field(default_factory=time.monotonic)
    fault: Exception | None = None

    def feed(self, chunks: Iterable[bytes], hold: threading.Event | None) -> None:
        """Write all of ``chunks``, then close, not before ``hold`` is set."""
        pipe = _pipe(self.process.stdin)
        with contextlib.suppress(OSError, ValueError):  # it ended first: its exit code says why
            for chunk in chunks:
                pipe.write(chunk)
                self.sent, self.moved = self.sent + len(chunk), time.monotonic()
            pipe.flush()
        if hold is not None:
            hold.wait()
        with contextlib.suppress(OSError, ValueError):
            pipe.close()

    def read(self) -> None:
        """Keep all that it answers."""
        for chunk in iter(lambda: os.read(_pipe(self.process.stdout).fileno(), 1 << 16), b""):
            self.out.append(chunk)
            self.moved = time.monotonic()

    def listen(self) -> None:
        """Keep what it says beside, and pass it on line by line; ``fault``: what whoever hears it ended with."""
        for raw in _pipe(self.process.stderr):
            text = raw.decode("utf-8", "replace").rstrip("\r\n")
            self.err.append(text)
            self.moved = time.monotonic()
            try:
                if self.fault is None:
                    self.heard(text)
            except Exception as e:  # the pipe is read on, or the process would wait for us for ever
                self.fault = e


def start_process(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process with three pipes in a session of its own, so that Ctrl-C reaches it by us alone."""
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True)


def run_process(
    argv: Sequence[str],
    chunks: Iterable[bytes],
    *,
    silence_s: float | None,
    hold: bool = False,
    heard: Callable[[str], None] = lambda text: None,
) -> Ended:
    """How ``argv`` ended that was fed ``chunks``. ``hold``: its standard input stays open until it has answered.

    Raises:
        Silent: no byte passed in either direction for ``silence_s`` seconds.
        OSError: it cannot be started.
    """
    process = start_process(argv)
    pipes, held = _Pipes(process, heard), threading.Event() if hold else None
    feeder = threading.Thread(target=pipes.feed, args=(chunks, held), daemon=True)
    readers = [threading.Thread(target=move, daemon=True) for move in (pipes.read, pipes.listen)]
    try:
        for thread in (feeder, *readers):
            thread.start()
        while any(thread.is_alive() for thread in readers):
            next(thread for thread in readers if thread.is_alive()).join(LOOK_S)
            if silence_s is not None and time.monotonic() - pipes.moved > silence_s:
                raise Silent
        code = process.wait(silence_s)
    except subprocess.TimeoutExpired:
        raise Silent from None
    finally:
        if held is not None:
            held.set()
        ended(process)
        for thread in (feeder, *readers):
            thread.join(LOOK_S)
    if pipes.fault is not None:
        raise pipes.fault
    return Ended(code, b"".join(pipes.out), "\n".join(pipes.err), pipes.sent)


def ended(process: subprocess.Popen[bytes], *, wait_s: float = 2.0) -> None:
    """See that ``process`` and what it started have ended, and close its pipes."""
    if process.poll() is None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)
                break
    for pipe in (process.stdout, process.stderr, process.stdin):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # all three were asked for
    return pipe
