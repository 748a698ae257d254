"""Progress of one piece of work on stderr: a bar with the time that is left, or a line now and then."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dlx_deploy.report.table import format_seconds
from dlx_deploy.runtime.words import line

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Bar"]

_INTERVAL_S = 5.0
_QUIET_S = 2.0
"""What takes less says nothing."""


class Bar:
    """A ``Progress`` to use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Any = None
        self._task: Any = None
        self._text = ""
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Bar:
        """Begin where there is a terminal."""
        if self._console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """End."""
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: float, total: float, text: str = "") -> None:
        """``done`` of ``total``; another piece of work, by its words, begins anew."""
        what = text.rpartition(" of ")[2].lstrip("0123456789 ") or text
        if what != self._text:
            self._text, self._began = what, time.monotonic()
            if self._bar is not None:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(line(what), total=total)
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
            return
        now = time.monotonic()
        if now - self._last >= _INTERVAL_S and now - self._began >= _QUIET_S and done:
            self._last = now
            left = format_seconds((now - self._began) / done * (total - done))
            self._console.print(line(f"  {100 * done / total:.0f} % of {what}; {left} left"), markup=False)
