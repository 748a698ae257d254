"""How long work still takes, from how far it has come: estimated once for all who tell progress."""

from __future__ import annotations

from dlx_deploy.report.table import format_seconds

__all__ = ["Pace"]

_BELIEVED_AFTER_S = 2.0
"""The first moments of a stretch hold what happens once: imports, a first batch."""


class Pace:
    """The pace of one step. A stretch ends where another total is told, or less than before: another part begins."""

    def __init__(self, now: float) -> None:
        self.started = now
        self._first, self._since = 0.0, now
        self._done, self._total, self._seen = 0.0, 0.0, now

    def tell(self, done: float, total: float, now: float) -> None:
        """``done`` of ``total`` units are finished at the time ``now``, in seconds."""
        if total != self._total or done < self._done:
            # What was done before is of an earlier run: training that goes on from a checkpoint.
            self._first, self._since = done, now
        self._done, self._total, self._seen = done, total, now

    def text(self, now: float) -> str:
        """``12 s``, or ``12 s, about 30 s left`` where that can be said."""
        passed = format_seconds(now - self.started)
        left = self.left_s(now)
        return passed if left is None else f"{passed}, about {format_seconds(left)} left"

    def left_s(self, now: float) -> float | None:
        """Seconds that are left, ``None`` where nothing is known or nothing is left."""
        advanced, took = self._done - self._first, self._seen - self._since
        if advanced <= 0 or took < _BELIEVED_AFTER_S or self._done >= self._total:
            return None
        return max(took / advanced * (self._total - self._done) - (now - self._seen), 0.0)
