"""An orderly end: the first SIGTERM or Ctrl-C asks a server to stop and lets it finish, the second ends it at once.

What was asked to stop and stopped has done what it was asked, so a server that answered all it had taken on ends with
0; one whose grace ran out before ends as the signal would have ended it (143 for SIGTERM).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from types import FrameType
from typing import Callable, Dict, Iterator, Optional, Union

__all__ = ["Stop", "drain", "exit_code", "stoppable"]

NAMES = ("SIGTERM", "SIGINT", "SIGHUP")
LOOK_EVERY_S = 0.02
Handler = Union[Callable[[int, Optional[FrameType]], object], int, None]


class Stop:
    """Whether, and by which signal, the process was asked to stop. ``ask`` may be called from any thread or handler.

    ``failed``: it stops because what serves broke down; set before ``ask`` is called.
    """

    def __init__(self) -> None:
        self.signal: Optional[int] = None
        self.asked = self.failed = False
        # A pipe: a handler that sets a threading.Event can wait for a lock that the interrupted thread holds.
        self._read, self._write = os.pipe()

    def ask(self, number: Optional[int] = None) -> None:
        """Asks to stop, as a signal of this ``number`` does."""
        if not self.asked:
            self.asked, self.signal = True, number
            os.write(self._write, b".")

    def wait(self, timeout_s: Optional[float] = None) -> bool:
        """Waits until it was asked, or so long; whether it was."""
        select.select([self._read], [], [], timeout_s)
        return self.asked

    def close(self) -> None:
        """Gives the pipe back."""
        os.close(self._read)
        os.close(self._write)


@contextlib.contextmanager
def stoppable(end: Callable[[int], object] = os._exit) -> Iterator[Stop]:
    """Inside, a first such signal is what ``Stop`` tells, and a second one calls ``end`` with its exit code.

    A signal that is ignored (``nohup``) stays so, and outside the main thread all are left alone.
    """
    stop = Stop()

    def arrived(number: int, frame: Optional[FrameType]) -> None:
        if stop.asked:
            end(128 + number)
        stop.ask(number)

    before: Dict[int, Handler] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, arrived)
    try:
        yield stop
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
        stop.close()


def drain(busy: Callable[[], int], grace_s: float, clock: Callable[[], float] = time.monotonic) -> bool:
    """Waits until nothing is ``busy`` (requests that were taken on), or for ``grace_s`` seconds; whether all ended."""
    until = clock() + grace_s
    while busy():
        if clock() >= until:
            return False
        time.sleep(LOOK_EVERY_S)
    return True


def exit_code(stop: Stop, drained: bool) -> int:
    """The exit code of a server that was asked to stop: 0, or that of its signal if requests were left unanswered; 1
    if nobody asked it to."""
    if stop.failed:
        return 1
    return 0 if drained else 128 + (stop.signal or signal.SIGTERM)
