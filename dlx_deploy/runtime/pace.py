"""How long work still takes, from how far it has come: worked out here for all who say it."""

from __future__ import annotations

from typing import Optional

__all__ = ["Pace", "format_seconds"]

BELIEVED_AFTER_S = 2.0
"""The first moments of a stretch hold what happens once: imports, a first batch."""


def format_seconds(value: float) -> str:
    """Seconds or minutes for a person: ``0.4 s``, ``12 s``, ``3 min 05 s``."""
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 60 else f"{value // 60:.0f} min {value % 60:02.0f} s"


class Pace:
    """The pace of one piece of work. A stretch ends where another total is told, or less than before: another part."""

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

    def left_s(self, now: float) -> Optional[float]:
        """Seconds that are left, ``None`` where nothing is known or nothing is left."""
        advanced, took = self._done - self._first, self._seen - self._since
        if advanced <= 0 or took < BELIEVED_AFTER_S or self._done >= self._total:
            return None
        return max(took / advanced * (self._total - self._done) - (now - self._seen), 0.0)
