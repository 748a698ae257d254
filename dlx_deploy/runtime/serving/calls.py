"""A call that waits for its turn, and the clock by which it waits: the seam at which tests take the place of time."""

from __future__ import annotations

import threading
import time
from typing import Dict, Optional, Protocol, Tuple

from ..errors import Busy, Expired
from ..records import record
from ..tasks.arrays import Arrays, count_of
from ..untyped import Array

__all__ = ["DONE", "LEADING", "RUNNING", "SYSTEM", "WAITING", "Call", "Clock", "Ran"]

WAITING, LEADING, RUNNING, DONE = "waiting", "leading", "running", "done"
"""A call is in the queue; runs the next batch; is in the batch that runs; has its outputs or its error."""


class Clock(Protocol):
    """Time, and waiting for as long as it takes."""

    def now(self) -> float:
        """Seconds since whenever."""

    def wait(self, signal: threading.Lock, timeout_s: Optional[float]) -> bool:
        """Whether ``signal`` was released within ``timeout_s`` (``None``: however long that takes); it is held then."""


@record
class Ran:
    """A batch that was run: its ``samples``, the model's seconds, and how long each call in it had waited before."""

    samples: int
    model_s: float
    waited_s: Tuple[float, ...]


class Call:
    """One caller's inputs on their way through the queue; whoever changes it holds the queue's lock.

    ``signal``: held but for the moment in which its caller is to wake up. ``alone``: its batch could not be run.
    """

    __slots__ = ("alone", "count", "deadline", "error", "feeds", "outputs", "signal", "since", "state")

    def __init__(self, feeds: Arrays, since: float, timeout_s: Optional[float]) -> None:
        self.feeds, self.count, self.since = feeds, count_of(feeds), since
        self.deadline = None if timeout_s is None else since + timeout_s
        self.state, self.alone = WAITING, False
        self.signal = threading.Lock()
        self.signal.acquire()
        self.outputs: Optional[Dict[str, Array]] = None
        self.error: Optional[Busy] = None

    def remaining(self, now: float) -> Optional[float]:
        """The seconds that are left, 0 if none are; ``None``: it has all the time there is."""
        return None if self.deadline is None else max(0.0, self.deadline - now)

    def is_late(self, now: float) -> bool:
        """Whether its time is over."""
        return self.deadline is not None and now >= self.deadline

    def end(self, now: float) -> None:
        """Ends it without outputs: with the error that it has, or because its time is over."""
        if self.error is None:
            self.expire(now)
        self.state = DONE

    def expire(self, now: float) -> None:
        """Ends it without outputs, as its time is over."""
        why = "the model still ran" if self.state == RUNNING else "it waited for others, and was not run"
        self.error = Expired(f"no answer within {now - self.since:.3g} s: {why}; allow more time, or ask less often")
        self.state = DONE

    def answer(self, outputs: Dict[str, Array], wake: bool) -> None:
        """Ends it with its outputs, and wakes its caller up; one that has stopped waiting gets none."""
        if self.state == RUNNING:
            self.state, self.outputs = DONE, outputs
            if wake:
                self.signal.release()

    def result(self) -> Dict[str, Array]:
        """Its outputs.

        Raises:
            Busy: its error.
        """
        if self.error is not None:
            raise self.error
        assert self.outputs is not None
        return self.outputs


class _System:
    """The system's clock."""

    def now(self) -> float:
        """As ``Clock.now``."""
        return time.monotonic()

    def wait(self, signal: threading.Lock, timeout_s: Optional[float]) -> bool:
        """As ``Clock.wait``; a lock waits no longer than ``threading.TIMEOUT_MAX``."""
        return signal.acquire(timeout=-1 if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))


SYSTEM: Clock = _System()
