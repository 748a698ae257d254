"""One thread that looks after a server's models while others answer: a stuck run is said, and in the end ends it."""

from __future__ import annotations

import os
import sys
import threading
from typing import Callable, Optional, Protocol, Sequence

from .health import STUCK_EXIT, Health, Watchdog
from .logs import EventLog, Fields
from .notify import READY, STOPPING, WATCHDOG, Notifier

__all__ = ["Keeper", "Watched", "end_process"]

LOOK_EVERY_S = 1.0
ENDED_AT = 2.0
"""In units of the limit: stuck from 1 on, which a balancer sees; a run that ends before this one lets it go on."""


class Watched(Protocol):
    """What is looked after: one package that is open."""

    health: Health
    watchdog: Watchdog
    log: EventLog

    @property
    def name(self) -> str:
        """What the package is called."""


def end_process(code: int) -> None:
    """Ends the process at once: a thread that hangs inside a library cannot be interrupted, nor waited for."""
    sys.stderr.flush()
    os._exit(code)


class Keeper:
    """Looks at ``watches`` each second, inside a ``with``. A supervisor hears that all are alive while all are.

    ``end`` is called with ``STUCK_EXIT`` when a run takes twice its limit; ``None``: the process goes on, unhealthy.
    """

    def __init__(
        self,
        watches: Sequence[Watched],
        notifier: Optional[Notifier] = None,
        end: Optional[Callable[[int], object]] = end_process,
    ) -> None:
        self._watches, self._end = watches, end
        self.notifier = notifier or Notifier()
        wanted = self.notifier.watchdog_s
        self._every_s = LOOK_EVERY_S if wanted is None else min(LOOK_EVERY_S, wanted / 2)  # as sd_watchdog_enabled(3)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._closed.set()
        self._thread.join()

    def ready(self, status: str = "") -> None:
        """All models answered: the supervisor starts what waits for this."""
        self.notifier.tell(READY, status)

    def stopping(self) -> None:
        """The server stops: nothing is ready any more, and the supervisor knows that it is meant."""
        for one in self._watches:
            one.health.move("stopping")
            one.log.event("stopping", {"model": one.name})
        self.notifier.tell(STOPPING)

    def look(self) -> bool:
        """Looks once; whether no run is stuck."""
        furthest = max([self._look_at(one) for one in self._watches], default=0.0)
        if furthest < 1:
            self.notifier.tell(WATCHDOG)
            return True
        if furthest >= ENDED_AT and self._end is not None:
            self._end(STUCK_EXIT)
        return False

    def _look_at(self, watch: Watched) -> float:
        far, limit_s = watch.watchdog.look(), watch.watchdog.limit_s
        stuck = far >= 1
        reason = f"a run has taken {far * limit_s:.1f} s, and {limit_s:.3g} s is its limit" if stuck else ""
        news = watch.health.stuck(reason)
        if news:
            fields: Fields = {"model": watch.name, "taken_s": round(far * limit_s, 3), "limit_s": round(limit_s, 3)}
            watch.log.event("stuck" if stuck else "recovered", fields, "error" if stuck else "warning")
        if far >= ENDED_AT and self._end is not None:
            watch.log.event("ending", {"model": watch.name, "exit_code": STUCK_EXIT, "reason": reason}, "error")
        return far

    def _keep(self) -> None:
        while not self._closed.wait(self._every_s):
            self.look()
