"""What a search came to, as people look at it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dlx_deploy.errors import DlxError, GateFailed, StageFailed
from dlx_deploy.report.studies import TrialState
from dlx_deploy.report.table import format_bytes, format_ms, format_seconds, format_table
from dlx_deploy.runtime.views import lines_of
from dlx_deploy.runtime.words import line, percent
from dlx_deploy.search.outcome import Figures, Miss
from dlx_deploy.search.study import Done
from dlx_deploy.stages.support.results import MEASURED

__all__ = ["SearchView", "TrialRow", "row_of_trial", "trial_line"]

SHOWN = 20
"""Trials outside of the front are counted, not listed; of the front at most so many rows are."""


class TrialRow(msgspec.Struct, frozen=True, kw_only=True):
    """One trial. ``values``: key → what it had, as TOML spells it. ``same_as``: an earlier one with these; -1: none."""

    number: int
    values: dict[str, str]
    state: TrialState
    meets: bool
    on_front: bool
    figures: Figures | None
    misses: tuple[Miss, ...]
    reason: str
    seconds: float
    ran: int
    cached: int
    same_as: int


class SearchView(msgspec.Struct, frozen=True, kw_only=True):
    """``chosen``: the number of the trial that ``file`` is of, ``None`` where none meets all budgets; ``nearest``: then
    the one that is least over them. ``at_work``: trials of other workers. ``plot``: empty without a finished trial."""

    target: str
    study: str
    split: str
    choose: str
    asked: int
    at_work: int
    trials: tuple[TrialRow, ...]
    chosen: int | None
    nearest: int | None
    max_latency_p90_ms: float
    file: str = ""
    plot: str = ""

    @property
    def data(self) -> SearchView:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """The Pareto front as a table, what became of the other trials, and what was chosen."""
        front = sorted((row for row in self.trials if row.on_front), key=_by_latency)
        keys = [key for key in (front[0].values if front else {}) if len({row.values[key] for row in self.trials}) > 1]
        lines = [_table(front[:SHOWN], keys, self.chosen)] if front else []
        if len(front) > SHOWN:
            lines.append(f"… and {len(front) - SHOWN} more of the front (--json has all)")
        return "\n".join([*lines, lines_of([*self._counted(), *self._notes(front), *self._chosen()])])

    @property
    def failure(self) -> DlxError | None:
        """Why there is no choice."""
        if self.chosen is not None:
            return None
        nearest = next((row for row in self.trials if row.number == self.nearest), None)
        if nearest is None:
            failed = next((row for row in self.trials if row.state == "failed"), None)
            why = f"trial {failed.number}: {failed.reason}" if failed else "none came to an end; give more --minutes"
            return StageFailed(f"search: no trial could be weighed; {why}")
        missed = "; ".join(miss.text for miss in nearest.misses)
        return GateFailed(
            f"search: none of {len(self.trials)} trials meets the budgets; the nearest is trial {nearest.number} "
            f"({_values(nearest.values)}): {missed}; raise --trials, widen search.space, or raise that budget"
        )

    def _counted(self) -> list[str]:
        states = [row.state for row in self.trials]
        names = {"complete": "weighed", "stopped": "stopped early", "failed": "failed"}
        parts = [f"{states.count(state)} {name}" for state, name in names.items() if state in states]
        ran, cached = sum(row.ran for row in self.trials), sum(row.cached for row in self.trials)
        work = f"; {self.at_work} are still at work elsewhere" if self.at_work else ""
        counted = f"{len(states)} of {self.asked} trials: {', '.join(parts) or 'none finished'}{work}"
        return [f"{counted}; {ran} steps ran, {cached} were in the store."]

    def _notes(self, front: Sequence[TrialRow]) -> list[str]:
        known = front[0].figures if front else None
        if known is None:
            return []
        return [
            f"{_capital(known.title)} on the {known.samples} samples of the validation split; the test split was not "
            "looked at. Drop against the teacher, in points.",
            f"Latency at batch 1: {known.latency_kind}, {known.latency_where}.",
        ]

    def _chosen(self) -> list[str]:
        plot = [f"Plot: {line(self.plot)}"] if self.plot else []
        if self.chosen is None:
            return plot
        best = {
            "latency": "the fastest",
            "accuracy": "the most accurate",
            "size": "the smallest",
            "energy": "the least energy",
        }[self.choose]
        return [
            *plot,
            f"Chosen: trial {self.chosen}, {best} of those that meet the budgets. It is built and judged on the test "
            f"split by: dlx-deploy build -c {line(self.file)} --target {self.target}",
        ]


def row_of_trial(done: Done, on_front: bool) -> TrialRow:
    """A finished trial as a row."""
    outcome = done.outcome
    return TrialRow(
        number=done.number,
        values=done.values,
        state=outcome.state,
        meets=outcome.meets,
        on_front=on_front,
        figures=outcome.figures,
        misses=outcome.misses,
        reason=outcome.reason,
        seconds=outcome.seconds,
        ran=outcome.ran,
        cached=outcome.cached,
        same_as=done.same_as,
    )


def trial_line(done: Done, asked: int) -> str:
    """A finished trial on one line, for people who wait."""
    outcome, head = done.outcome, f"trial {done.number} of {asked}  {_values(done.values)}"
    if done.same_as >= 0:
        return f"{head}  as trial {done.same_as}"
    tail = f"({format_seconds(outcome.seconds)}, {outcome.ran} steps ran, {outcome.cached} cached)"
    figures = outcome.figures
    if figures is None:
        return f"{head}  {outcome.state}: {outcome.reason}  {tail}"
    verdict = "meets the budgets" if outcome.meets else f"misses {', '.join(miss.budget for miss in outcome.misses)}"
    energy = "" if figures.energy_mj is None else f"  {_energy(figures)}"
    said = f"{figures.title} {percent(figures.score)}  {_latency(figures)}{energy}  {format_bytes(figures.size_bytes)}"
    return f"{head}  {said}  {verdict}  {tail}"


def _table(rows: Sequence[TrialRow], keys: Sequence[str], chosen: int | None) -> str:
    title = next(row.figures.title for row in rows if row.figures is not None)
    measured = any(row.figures is not None and row.figures.energy_mj is not None for row in rows)
    header = [
        "trial",
        *(key.rpartition(".")[2] for key in keys),
        title,
        "drop",
        "at most",
        "latency",
        *["energy"] * measured,
        "size",
        "budgets",
    ]
    drawn = [_cells(row, keys, chosen) for row in rows]
    first = len(keys) + 1
    return format_table(header, drawn, right=tuple(range(first, first + 5 + measured)))


def _cells(row: TrialRow, keys: Sequence[str], chosen: int | None) -> list[str]:
    figures = row.figures
    assert figures is not None
    return [
        ("→ " if row.number == chosen else "  ") + str(row.number),
        *(row.values[key] for key in keys),
        percent(figures.score),
        f"{100 * figures.drop:.2f}",
        f"{100 * figures.drop_upper:.2f}",
        _latency(figures),
        *([] if figures.energy_mj is None else [_energy(figures)]),
        format_bytes(figures.size_bytes),
        ", ".join(miss.budget for miss in row.misses) or "met",
    ]


def _by_latency(row: TrialRow) -> float:
    return row.figures.latency_ms if row.figures else 0.0


def _latency(figures: Figures) -> str:
    return ("" if figures.latency_kind == MEASURED else "~") + format_ms(figures.latency_ms)


def _energy(figures: Figures) -> str:
    return f"{figures.energy_mj:.3g} mJ"


def _values(values: dict[str, str]) -> str:
    return line(", ".join(f"{key.partition('.')[2]} {value}" for key, value in values.items()))


def _capital(title: str) -> str:
    return title.capitalize() if title.islower() else title
