"""Live progress on stderr: a bar per running step on a terminal, a line per step elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.manifest import StepEntry
from dlx_deploy.pipeline.plan import Planned
from dlx_deploy.pipeline.stage import Step
from dlx_deploy.report.table import LOST, format_seconds
from dlx_deploy.runtime.terminal import silence
from dlx_deploy.runtime.words import line

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["LiveWatcher", "QuietWatcher", "stderr_console"]

_QUIET_INTERVAL_S = 5.0
"""Without a terminal a running step says how far it is this often."""


_SCORED = ("shipped", "validation", "train", "quantized", "pruned", "student", "teacher")
"""Whose score, as in ``shipped_METRIC``."""
_TELLING = (
    "test_samples",
    "int8",
    "int8_speedup",
    "loss",
    "macs_removed",
    "test_images",
    "test_texts",
    "classes",
    "epochs",
)
"""The other metrics in the order in which they tell something: a line has room for five, and scores come first."""


class QuietWatcher:
    """Says nothing but what must not go unseen, by ``say``: for ``--json``."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def started(self, planned: Planned) -> None:
        """Nothing."""

    def waiting(self, step: Step) -> None:
        """Nothing."""

    def progress(self, step: Step, done: float, total: float, text: str) -> None:
        """Nothing."""

    def finished(self, entry: StepEntry, gates: Sequence[GateResult]) -> None:
        """Nothing."""

    def noted(self, step: Step, text: str) -> None:
        """Say it."""
        self._say(f"warning: {step.name}: {text}")


def stderr_console() -> Console:
    """A console on stderr that falls silent where its reader went away: rich would end the build, and close stdout."""
    from rich.console import Console

    class Unread(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            silence(sys.stderr)

    return Unread(stderr=True)


class LiveWatcher:
    """Draws a build as it happens; use as a context manager. ``score``: the metric of the build's task."""

    def __init__(self, console: Console, score: str) -> None:
        self._console = console
        self._telling = (*(f"{who}_{score}" for who in _SCORED), *_TELLING)
        self._bar: Any = None
        self._task: Any = None
        self._last = 0.0

    def __enter__(self) -> LiveWatcher:
        """Start drawing where there is a terminal."""
        if self._console.is_terminal:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Stop drawing."""
        if self._bar is not None:
            self._bar.stop()

    def started(self, planned: Planned) -> None:
        """Show why the step runs, and begin its bar."""
        self._say(f"▸ {planned.step.name:<15} {planned.why}", "dim")
        self._last = time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(f"{planned.step.name:<15}", total=None, text="")

    def waiting(self, step: Step) -> None:
        """Say that another build is at work on this very step."""
        self._say(f"… {step.name:<15} another build is running this step; waiting for its result", "yellow")

    def progress(self, step: Step, done: float, total: float, text: str) -> None:
        """Move the bar; without a terminal print a line now and then."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total or None, text=line(text))
        elif time.monotonic() - self._last >= _QUIET_INTERVAL_S:
            self._last = time.monotonic()
            self._say(f"  {step.name:<15} {done:.0f}/{total:.0f} {text}", "dim")

    def finished(self, entry: StepEntry, gates: Sequence[GateResult]) -> None:
        """Show the step as done or cached, and what its gates say."""
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        took = "cached" if entry.status == "cached" else format_seconds(entry.seconds)
        self._say(
            f"✓ {entry.step:<15} {took:<8} {_metrics(entry, self._telling)}", "green" if entry.status == "ran" else ""
        )
        for gate in gates:
            style = {"pass": "green", "fail": "red", "undecided": "yellow", "pending": "yellow"}[gate.verdict]
            self._say(f"  gate {gate.gate}: {gate.verdict.upper()}. {gate.text}", style)

    def noted(self, step: Step, text: str) -> None:
        """Say it below the step."""
        self._say(f"! {step.name:<15} {text}", "yellow")

    def _say(self, text: str, style: str) -> None:
        try:
            self._console.print(line(text), style=style or None, highlight=False, markup=False, soft_wrap=True)
        except OSError:  # nobody reads any more; the build goes on unseen
            self._console.quiet = True


def _metrics(entry: StepEntry, telling: Sequence[str]) -> str:
    names = [name for name in LOST if entry.metrics.get(name)]
    names += [name for name in telling if name in entry.metrics]
    names += [name for name in entry.metrics if name not in (*telling, *LOST)]
    return "  ".join(f"{name} {entry.metrics[name]:.4g}" for name in names[:5])
