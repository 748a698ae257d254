"""SIGTERM as an interruption: what a supervisor, a container's stop or a batch queue sends before it kills.

Without this Python would die on the spot: no message, a builder's process left running, a build that never says how it
ended.
"""

from __future__ import annotations

import contextlib
import signal
from types import FrameType
from typing import Callable, Dict, Iterator, List, Optional, Union

__all__ = ["INTERRUPTED", "Terminated", "interruptible"]

INTERRUPTED = 130
"""The exit code of what Ctrl-C ended: 128 and the signal's number."""
NAMES = ("SIGTERM", "SIGHUP")


class Terminated(KeyboardInterrupt):
    """Raised where the process is when such a signal arrives; all that tidies up after Ctrl-C tidies up after it.

    ``exit_code`` is 128 and the signal's number, 143 for SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextlib.contextmanager
def interruptible() -> Iterator[List[Terminated]]:
    """Inside, the first such signal raises ``Terminated``, and later ones wait until what it stopped is tidied up.

    Gives a list that then holds it: a library on the way may make another exception of it. A signal that somebody
    handles or ignores (``nohup``) is left alone, and outside the main thread all are.
    """
    before: Dict[int, Union[Callable[[int, Optional[FrameType]], object], int, None]] = {}
    arrived: List[Terminated] = []

    def stop(number: int, frame: Optional[FrameType]) -> None:
        for known in before:
            signal.signal(known, signal.SIG_IGN)
        arrived.append(Terminated(number))
        raise arrived[0]

    try:
        for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    except ValueError:  # not the main thread
        before.clear()
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
