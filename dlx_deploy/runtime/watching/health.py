"""Whether a server is well: it is ready once its model answered, and it is stuck when a run does not end."""

from __future__ import annotations

import threading
import time
from typing import Callable, Dict, Optional

from ..errors import InputError
from ..records import record

__all__ = ["STUCK_EXIT", "Health", "HealthReport", "Watchdog", "WatchdogOptions"]

STUCK_EXIT = 8
"""The exit code of a process that ends because a run of its model does not: no other fault has it."""
LEARN = 20
"""Runs before their usual time is known: the first ones load kernels, and choose among them."""
MEMORY = 64  # runs: an exponential mean over about so many


@record
class WatchdogOptions:
    """When a run is stuck: after ``limit_s``, or, where that is ``None``, after ``factor`` times what is usual here.

    ``least_s``: never before that; ``first_s``: as long as nothing is known to be usual.
    """

    limit_s: Optional[float] = None
    factor: float = 50.0
    least_s: float = 10.0
    first_s: float = 120.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 0 < value < 1e9:
                raise InputError(f"watchdog {name} is {value}; must be above 0")


@record
class HealthReport:
    """``live``: the process is worth keeping; ``ready``: requests may come; ``reason``: why not, for people."""

    live: bool
    ready: bool
    state: str
    reason: str = ""

    def to_dict(self) -> Dict[str, object]:
        """The report as JSON-ready values."""
        return dict(vars(self))


class Watchdog:
    """Knows the runs that have begun and not ended, from any thread; ``look`` says whether one is stuck."""

    def __init__(self, options: WatchdogOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._options, self._clock, self._lock = options, clock, threading.Lock()
        self._running: Dict[int, float] = {}
        self._next, self._ended, self._usual_s = 0, 0, 0.0

    def begin(self) -> int:
        """A run begins; its number, for ``end``."""
        with self._lock:
            self._next += 1
            self._running[self._next] = self._clock()
            return self._next

    def end(self, number: int) -> None:
        """That run ended, well or not."""
        with self._lock:
            took = self._clock() - self._running.pop(number)
            self._ended += 1
            self._usual_s += (took - self._usual_s) / min(self._ended, MEMORY)

    @property
    def limit_s(self) -> float:
        """How long a run may take now."""
        options = self._options
        if options.limit_s is not None:
            return options.limit_s
        if self._ended < LEARN:
            return options.first_s
        return max(options.factor * self._usual_s, options.least_s)

    def look(self) -> float:
        """How long the oldest run has taken, in units of the limit: above 1 it is stuck."""
        with self._lock:
            oldest = min(self._running.values(), default=None)
        return 0.0 if oldest is None else (self._clock() - oldest) / self.limit_s


class Health:
    """A server's state: ``starting``, ``ready``, ``stuck`` and back, ``stopping``, ``failed``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state, self._reason, self._stuck = "starting", "", ""

    def report(self) -> HealthReport:
        """How it is now."""
        with self._lock:
            if self._stuck and self._state != "failed":
                return HealthReport(False, False, "stuck", self._stuck)
            return HealthReport(self._state != "failed", self._state == "ready", self._state, self._reason)

    def move(self, state: str, reason: str = "") -> None:
        """It is in another state now; who is stopping or failed does not become ready again."""
        with self._lock:
            if self._state in ("starting", "ready") or state == "failed":
                self._state, self._reason = state, reason

    def stuck(self, reason: str) -> bool:
        """A run does not end, for this ``reason``; the empty one: it has ended after all. Whether that is news."""
        with self._lock:
            news = bool(reason) != bool(self._stuck)
            self._stuck = reason
            return news
