"""Signs of life of work that takes long: how far it is and how long it still takes, a line now and then."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Callable, Iterator

from .pace import Pace

__all__ = ["Tell", "next_line_s", "silent", "telling"]

Tell = Callable[[float, float, str], None]
"""Called as work goes on: so many units are done, of so many, and a remark. Cheap, and it raises nothing."""

FIRST_S = 5.0
LINE_EVERY_S = 10.0
LINE_AT_LEAST_EVERY_S = 60.0


def silent(done: float, total: float, text: str = "") -> None:
    """Work that nobody watches."""


def next_line_s(passed: float) -> float:
    """How long to be silent after a line, ``passed`` seconds into the work: 10 s, and each minute after ten."""
    return min(max(LINE_EVERY_S, passed / 10), LINE_AT_LEAST_EVERY_S)


@contextlib.contextmanager
def telling(say: Callable[[str], None], what: str, clock: Callable[[], float] = time.monotonic) -> Iterator[Tell]:
    """Inside, ``say`` hears from time to time that ``what`` goes on, also where nobody tells how far it is.

    Short work says nothing. ``say`` is called by a thread of its own: what is inside may be one long call.
    """
    state = _Work(what, clock)
    ended = threading.Event()

    def watch() -> None:
        wait_s = FIRST_S
        while not ended.wait(wait_s):
            say(state.text())
            wait_s = next_line_s(state.passed_s())

    watcher = threading.Thread(target=watch, name="telling", daemon=True)
    watcher.start()
    try:
        yield state.tell
    finally:
        ended.set()
        watcher.join()


class _Work:
    """How far one piece of work is."""

    def __init__(self, what: str, clock: Callable[[], float]) -> None:
        self._what, self._clock = what, clock
        self._pace, self._far = Pace(clock()), ""

    def tell(self, done: float, total: float, text: str = "") -> None:
        """So far it is."""
        self._pace.tell(done, total, self._clock())
        counted = f"{done:.0f} of {total:.0f}" if total else ""
        self._far = ", ".join(part for part in (text, counted) if part)

    def text(self) -> str:
        """The line that is said of it."""
        return f"{self._what}: {self._far or 'still running'}; {self._pace.text(self._clock())}"

    def passed_s(self) -> float:
        """Seconds since it began."""
        return self._clock() - self._pace.started
