"""Where work in progress is drawn: a bar for each piece on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dlx_deploy.progress import Progress
from dlx_deploy.runtime.pace import Pace
from dlx_deploy.runtime.telling import next_line_s
from dlx_deploy.runtime.terminal import silence
from dlx_deploy.runtime.words import line

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["STEP", "Row", "Screen", "showing", "stderr_console"]

STEP = 18
"""Characters of the column of steps: ``evaluate-quantized``."""


def stderr_console() -> Console:
    """A console on stderr that falls silent where its reader went away: rich would end the build, and close stdout."""
    from rich.console import Console

    class Unread(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            silence(sys.stderr)

    return Unread(stderr=True)


class Row:
    """One piece of work; ``done`` of ``total`` is 0 of 0 where nobody has told."""

    def __init__(self, name: str, now: float) -> None:
        self.name, self.text = name, ""
        self.done, self.total = 0.0, 0.0
        self.pace, self.next = Pace(now), now + next_line_s(0)
        self.bar: Any = None
        self.took = ""
        """What its pace was at its end."""


class Screen:
    """Draws rows and prints lines above them; use as a context manager. ``clock`` gives seconds."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._rows: list[Row] = []
        self._bars: Any = None
        self._lock, self._closed = threading.RLock(), threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Screen:
        """Nothing is drawn before the first row."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Stop drawing."""
        self._closed.set()
        self._hide()

    def begin(self, name: str) -> Row:
        """Draw another piece of work, until it is ended."""
        row = Row(name, self._clock())
        with self._lock:
            self._rows.append(row)
        if self._console.is_terminal:
            self._show()
        elif self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return row

    def update(self, row: Row, done: float, total: float, text: str) -> None:
        """The piece has come so far."""
        row.done, row.total, row.text = done, total, line(text)
        row.pace.tell(done, total, self._clock())
        if self._bars is not None and row.bar is not None:
            self._bars.update(row.bar, completed=done, total=total or None, text=row.text)

    def complete(self, row: Row) -> None:
        """Draw it as one that works no longer."""
        self.update(row, 1, 1, "done")
        row.took = row.pace.text(self._clock())

    def end(self, row: Row) -> None:
        """Draw it no longer."""
        with self._lock:
            if row in self._rows:
                self._rows.remove(row)
        if self._bars is not None and row.bar is not None:
            self._bars.remove_task(row.bar)
        if not self._rows:
            self._hide()

    def say(self, text: str, style: str = "") -> None:
        """Print one line."""
        try:
            self._console.print(line(text), style=style or None, highlight=False, markup=False, soft_wrap=True)
        except OSError:  # nobody reads any more; the build goes on unseen
            self._console.quiet = True

    def tick(self) -> None:
        """Print a line for each row that has not been heard of for long."""
        now = self._clock()
        with self._lock:
            due = [row for row in self._rows if now >= row.next and not row.took]
        for row in due:
            passed = now - row.pace.started
            row.next = now + next_line_s(passed)
            # Rounded down: an epoch that has begun is not done.
            far = f"{int(row.done)}/{row.total:.0f} {row.text}".rstrip() if row.total else row.text or "still running"
            self.say(f"  {row.name:<{STEP}} {far}; {row.pace.text(now)}", "dim")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, others can write to the terminal."""
        self._hide()
        try:
            yield
        finally:
            if self._rows and self._console.is_terminal:
                self._show()

    def _tick(self) -> None:
        while not self._closed.wait(1.0):
            self.tick()

    def _show(self) -> None:
        if self._bars is None:
            self._bars = _bars(self._console)
            self._bars.start()
        for row in self._rows:
            if row.bar is None:
                row.bar = self._bars.add_task(f"{row.name:<{STEP}}", total=row.total or None, text=row.text, row=row)
                self._bars.update(row.bar, completed=row.done)

    def _hide(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        for row in self._rows:
            row.bar = None


@contextlib.contextmanager
def showing(name: str) -> Iterator[Progress]:
    """Inside, the progress of one piece of work is drawn on stderr."""
    with Screen(stderr_console()) as screen:
        row = screen.begin(name)
        yield lambda done, total, text="": screen.update(row, done, total, text)


def _bars(console: Console) -> Any:
    from rich import progress
    from rich.text import Text

    class PaceColumn(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            row: Row = task.fields["row"]
            return Text(row.took or row.pace.text(time.monotonic()), style="progress.elapsed")

    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=24),
        progress.TextColumn("{task.fields[text]}", markup=False),
        PaceColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,  # stdout is the result, and may be a file
    )
