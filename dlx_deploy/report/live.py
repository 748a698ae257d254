"""A build as it happens, on stderr: why each step runs, how far it is, what it gave, what its gates say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import UNSET

from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.manifest import StepEntry
from dlx_deploy.pipeline.plan import Planned
from dlx_deploy.pipeline.stage import Step
from dlx_deploy.report.screen import STEP, Row, Screen
from dlx_deploy.report.table import LOST, format_mib, format_seconds

__all__ = ["LiveWatcher", "QuietWatcher", "RowsWatcher"]

_SCORED = ("shipped", "validation", "train", "quantized", "pruned", "student", "teacher")
"""Whose score, as in ``shipped_METRIC``."""
_TELLING = (
    "test_samples",
    "int8",
    "int8_speedup",
    "loss",
    "macs_removed",
    "sparse_zeros",
    "two_four_layers",
    "test_images",
    "test_texts",
    "classes",
    "epochs",
)
"""The other metrics in the order in which they tell something: a line has room for five, and scores come first."""
REHEARSAL = "rehearsal"
"""What a row is called in which no step works yet; no step has this name."""


class QuietWatcher:
    """Says nothing but what must not go unseen, by ``say``: for ``--json``."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def rehearsing(self, done: float, total: float, text: str = "") -> None:
        """Nothing."""

    def started(self, planned: Planned) -> None:
        """Nothing."""

    def waiting(self, step: Step) -> None:
        """Nothing."""

    def progress(self, step: Step, done: float, total: float, text: str) -> None:
        """Nothing."""

    def ended(self, step: Step, is_done: bool) -> None:
        """Nothing."""

    def finished(self, entry: StepEntry, gates: Sequence[GateResult]) -> None:
        """Nothing."""

    def noted(self, step: Step, text: str) -> None:
        """Say it."""
        self._say(f"warning: {step.name}: {text}")


class LiveWatcher:
    """Draws a build on ``screen`` as it happens. ``score``: the metric of the build's task; ``target``: the name of the
    build, where several are drawn."""

    def __init__(self, screen: Screen, score: str, target: str = "") -> None:
        self._screen, self._target = screen, f"  [{target}]" if target else ""
        self._telling = (*(f"{who}_{score}" for who in _SCORED), *_TELLING)
        self._rows: dict[str, Row] = {}

    def rehearsing(self, done: float, total: float, text: str = "") -> None:
        """Move its row, which ends with it."""
        if done >= total:
            self._end(REHEARSAL)
            return
        if REHEARSAL not in self._rows:
            self._rows[REHEARSAL] = self._screen.begin(f"{REHEARSAL}{self._target}")
        # Steps take so unequal times that one says nothing of how long the others will.
        self._screen.update(self._rows[REHEARSAL], 0, 0, f"{text}, {done + 1:.0f} of {total:.0f}")

    def started(self, planned: Planned) -> None:
        """Show why the step runs, and begin its row."""
        name = planned.step.name
        self._say(f"▸ {name:<{STEP}} {planned.why}", "dim")
        self._rows[name] = self._screen.begin(f"{name}{self._target}")

    def waiting(self, step: Step) -> None:
        """Say that another build is at work on this very step."""
        self._say(f"… {step.name:<{STEP}} another build is running this step; waiting for its result", "yellow")

    def progress(self, step: Step, done: float, total: float, text: str) -> None:
        """Move its row."""
        if step.name in self._rows:
            self._screen.update(self._rows[step.name], done, total, text)

    def ended(self, step: Step, is_done: bool) -> None:
        """Draw it as done, or no longer."""
        if step.name in self._rows and is_done:
            self._screen.complete(self._rows[step.name])
        else:
            self._end(step.name)

    def finished(self, entry: StepEntry, gates: Sequence[GateResult]) -> None:
        """Show the step as done or cached, and what its gates say."""
        self._end(entry.step)
        ran = entry.status == "ran"
        took = format_seconds(entry.seconds) if ran else "cached"
        memory = "" if not ran or entry.peak_memory_mib is UNSET else f"  {format_mib(entry.peak_memory_mib)}"
        self._say(
            f"✓ {entry.step:<{STEP}} {took:<8} {_metrics(entry, self._telling)}{memory}",
            "green" if ran else "",
        )
        for gate in gates:
            style = {"pass": "green", "fail": "red", "undecided": "yellow", "pending": "yellow"}[gate.verdict]
            self._say(f"  gate {gate.gate}: {gate.verdict.upper()}. {gate.text}", style)

    def noted(self, step: Step, text: str) -> None:
        """Say it below the step."""
        self._say(f"! {step.name:<{STEP}} {text}", "yellow")

    def _end(self, name: str) -> None:
        if name in self._rows:
            self._screen.end(self._rows.pop(name))

    def _say(self, text: str, style: str) -> None:
        self._screen.say(f"{text}{self._target}", style)


class RowsWatcher(LiveWatcher):
    """Draws what is at work and says nothing of what is done, but once what must not go unseen: for many builds."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(screen, "")
        self._told: set[str] = set()

    def _say(self, text: str, style: str) -> None:
        if style == "yellow" and text not in self._told:
            self._told.add(text)
            super()._say(text, style)


def _metrics(entry: StepEntry, telling: Sequence[str]) -> str:
    names = [name for name in LOST if entry.metrics.get(name)]
    names += [name for name in telling if name in entry.metrics]
    names += [name for name in entry.metrics if name not in (*telling, *LOST)]
    return "  ".join(f"{name} {entry.metrics[name]:.4g}" for name in names[:5])
