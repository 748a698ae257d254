"""Pushes as they happen, on stderr: a row for each board that is at work, and a line for each that has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dlx_deploy.devices.inventory import Board
from dlx_deploy.devices.pushing.push import Pushed
from dlx_deploy.progress import Progress
from dlx_deploy.report.screen import Screen
from dlx_deploy.report.table import format_seconds

__all__ = ["PushWatcher"]

MARKS = {"current": ("✓", "green"), "would be current": ("✓", "")}


class PushWatcher:
    """Draws pushes on ``screen``; ``several``: what comes of each is told as it ends, too."""

    def __init__(self, screen: Screen, several: bool) -> None:
        self._screen, self._several = screen, several

    def say(self, text: str) -> None:
        """Print it above the rows."""
        self._screen.say(text, "yellow" if "warning: " in text else "dim")

    @contextmanager
    def row(self, board: Board) -> Iterator[Progress]:
        """Draw the board until this ends."""
        row = self._screen.begin(board.name)
        try:
            yield lambda done, total, text="": self._screen.update(row, done, total, text)
        finally:
            self._screen.end(row)

    def ended(self, pushed: Pushed) -> None:
        """Say it, where others are still at work."""
        if self._several:
            mark, style = MARKS.get(pushed.outcome, ("✗", "red"))
            why = f": {pushed.why}" if pushed.why else ""
            self._screen.say(f"{mark} {pushed.board} {pushed.outcome} ({format_seconds(pushed.seconds)}){why}", style)
