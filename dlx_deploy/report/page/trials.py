"""What was tried, in words and tables: graphs of quantization, and trials of a search; for the page and a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from dlx_deploy.report.page.facts import Quantization, Searched
from dlx_deploy.report.page.parts import Table
from dlx_deploy.report.studies import StudyTrial, StudyTrials
from dlx_deploy.report.table import format_bytes, format_ms
from dlx_deploy.runtime.words import line, percent

__all__ = ["points_table", "points_words", "search_table", "search_words"]

_CAPTION = "Graphs that were tried"
_SHOWN = 30
"""Trials in an open table; more are folded."""


def points_words(seen: Quantization) -> list[str]:
    """How many graphs were tried, and how that ended; nothing where none was."""
    words = []
    if seen.trials is not None and seen.trials.note:
        words.append(f"{seen.trials.note[0].upper()}{seen.trials.note[1:]}.")
    if seen.points:
        samples = seen.trials.samples if seen.trials else 0
        many = "1 graph was" if len(seen.points) == 1 else f"{len(seen.points)} graphs were"
        words.append(f"{many} tried on {samples:,} samples of the validation split.")
    return words


def points_table(seen: Quantization) -> Table:
    """A row for each graph, in the order in which they were tried."""
    title = seen.trials.title if seen.trials else ""
    header = ["layers restored", "in INT8", title or "score", "drop at most", "budget", "latency", ""]
    rows = [
        [
            str(point.restored) + (" (trained)" if point.trained else ""),
            str(point.int8_layers),
            percent(point.score),
            "-" if point.drop_upper is None else f"{100 * point.drop_upper:.2f} points",
            point.verdict,
            format_ms(point.latency_ms) + (f" ({point.latency})" if point.latency else ""),
            "chosen" if point.chosen else "",
        ]
        for point in seen.points
    ]
    marked = frozenset(i for i, point in enumerate(seen.points) if point.chosen)
    return Table(header, rows, right=(0, 1, 2, 3, 5), marked=marked, caption=_CAPTION)


def search_words(searched: Searched) -> list[str]:
    """Which trial the configuration is, and what is known of the others."""
    of = f"trial {searched.trial} of study {searched.study}"
    trials = searched.trials
    if trials is None:
        return [f"The configuration is {of}, whose trials are not in this store."]
    words = [f"The configuration is {of}, chosen by {trials.choose} of those that meet the budgets."]
    words += [f"It was changed since: {'; '.join(searched.changed)}."] if searched.changed else []
    states = [one.state for one in trials.trials]
    names = {"complete": "weighed", "stopped": "stopped early", "failed": "failed"}
    counted = ", ".join(f"{states.count(state)} {name}" for state, name in names.items() if state in states)
    words.append(
        f"{len(states)} trials: {counted}; by {trials.samples:,} samples of the validation split, where the teacher "
        f"has {percent(trials.teacher_score)}. Latency: {trials.latency_kind}, {trials.latency_where}."
    )
    return words


def search_table(searched: Searched, trials: StudyTrials) -> Table:
    """A row for each trial: this build's first, then the front, each the fastest first, then all others."""
    ranked = sorted(trials.trials, key=lambda one: _rank(one, searched.trial))
    varied = _varied(trials)
    header = ["trial", *(key.rpartition(".")[2] for key in varied), trials.title]
    header += ["drop at most", "latency", "size", "budgets"]
    rows = [[*_cells(one, varied, searched.trial)] for one in ranked]
    first = 1 + len(varied)
    marked = frozenset(i for i, one in enumerate(ranked) if one.number == searched.trial)
    folded = f"All {len(rows)} trials" if len(rows) > _SHOWN else ""
    caption = "Trials; → is this build's, ○ is on the Pareto front"
    return Table(header, rows, right=range(first, first + 4), marked=marked, caption=caption, folded=folded)


def _varied(trials: StudyTrials) -> list[str]:
    """The keys in which trials differ."""
    keys = dict.fromkeys(key for one in trials.trials for key in one.values)
    return [key for key in keys if len({one.values.get(key) for one in trials.trials}) > 1]


def _rank(one: StudyTrial, own: int) -> tuple[bool, bool, float, int]:
    ms = float("inf") if one.latency_ms is None else one.latency_ms
    return one.number != own, not one.on_front, ms, one.number


def _cells(one: StudyTrial, keys: list[str], own: int) -> Iterator[str]:
    sign = "→ " if one.number == own else "○ " if one.on_front else ""
    yield f"{sign}{one.number}"
    yield from (line(one.values.get(key, "-")) for key in keys)
    yield "-" if one.score is None else percent(one.score)
    yield "-" if one.drop_upper is None else f"{100 * one.drop_upper:.2f} points"
    yield format_ms(one.latency_ms)
    yield "-" if one.size_bytes is None else format_bytes(one.size_bytes)
    yield "met" if one.meets else f"{one.state}: {one.reason}" if one.state != "complete" else one.reason
