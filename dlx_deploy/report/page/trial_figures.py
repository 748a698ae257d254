"""The plots of what was tried: graphs that keep to a budget, and the trials of a search, each with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlx_deploy.graph.quantization.trials import Trials
from dlx_deploy.report.page.facts import Searched, TrialPoint
from dlx_deploy.report.page.figures import short_name
from dlx_deploy.report.page.parts import Figure, Table
from dlx_deploy.report.page.svg import COLOURS, canvas, svg_of
from dlx_deploy.report.studies import StudyTrials
from dlx_deploy.report.table import format_bytes, format_ms
from dlx_deploy.runtime.words import line, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["pareto", "trace", "tried"]

_SIDE = 7.0
"""Points that a marker is wide, where it stands for nothing else."""
_LEAST_SIDE, _MOST_SIDE = 5.0, 13.0
"""Where its area stands for the size of a model."""
_MOST_LABELS = 12
"""Dots that are named; the table has all."""


@dataclass(frozen=True)
class _Dot:
    """One thing that was tried. ``met``: it keeps to the budgets; ``mark``: what stands beside it, "" for none."""

    ms: float
    score: float
    mark: str
    met: bool
    chosen: bool
    side: float = _SIDE


def tried(trials: Sequence[TrialPoint], title: str, table: Table) -> Figure:
    """Latency against the score of every graph that was tried, and the Pareto front."""
    timed = [(trial.latency_ms, trial) for trial in trials if trial.latency_ms is not None]
    dots = [_Dot(ms, t.score, str(t.restored), t.verdict == "met", t.chosen) for ms, t in timed]
    front = _front(dots)
    says = "Graphs that were tried: latency against the score on the validation split; the line is the Pareto front."
    with canvas(7.2, 3.4) as plot:
        axes = plot.add_subplot()
        _scatter(axes, dots, front)
        axes.set_ylabel(f"{short_name(title)}, %")
        how = "Numbers: layers restored; filled: within the budget; diamond: chosen"
        said = f"{len(dots)} graphs, {len(front)} on the front. {how}"
        svg = svg_of(plot, "tried", says, said + ".")
    return Figure("tried", f"{says} {said}.", svg, table)


def trace(points: Sequence[TrialPoint], trials: Trials, table: Table | None) -> Figure:
    """The score of every graph in the order in which they were tried, against the budget."""
    base = trials.fp32_score if trials.judged_by == "fp32" else trials.reference_score
    least = None if base is None or trials.max_drop is None else 100 * (base - trials.max_drop)
    says = (
        "What was tried, one after the other: the score on the validation split, and what it is at least by its bound."
    )
    with canvas(7.2, 2.8) as plot:
        axes = plot.add_subplot()
        for at, point in enumerate(points, 1):
            colour = COLOURS["two" if point.chosen else "one"]
            if base is not None and point.drop_upper is not None:
                axes.plot([at, at], [100 * point.score, 100 * (base - point.drop_upper)], color=colour, linewidth=2.5)
            face = colour if point.verdict == "met" else COLOURS["bg"]
            axes.plot([at], [100 * point.score], "D" if point.chosen else "o", color=colour, markerfacecolor=face)
        if trials.fp32_score is not None:
            _level(axes, 100 * trials.fp32_score, "FP32", "dim")
        if least is not None:
            _level(axes, least, "budget", "fail")
        axes.set_xticks(range(1, len(points) + 1), [_restored(point) for point in points])
        axes.set_xlim(0.5, len(points) + 0.9)
        axes.tick_params(length=0)
        axes.set_xlabel("layers restored to floating point")
        axes.set_ylabel(f"{short_name(trials.title) or 'score'}, %")
        axes.grid(axis="y", alpha=0.6)
        told = [f"{point.restored} restored {percent(point.score)}, {point.verdict}" for point in points]
        budget = "" if least is None else f" The budget allows no less than {least:.2f} %."
        svg = svg_of(plot, "trace", says, f"{line('; '.join(told))}.{budget}")
    return Figure("trace", f"{says} Filled: within the budget; diamond: chosen.", svg, table)


def pareto(searched: Searched, trials: StudyTrials, table: Table) -> Figure:
    """The trials of the search: latency against the score, the front, and the one that this build is of."""
    known = [one for one in trials.trials if one.score is not None and one.latency_ms is not None]
    largest = max((one.size_bytes or 0 for one in known), default=0) or 1
    named = {one.number for one in known if one.on_front}
    if len(named) > _MOST_LABELS:
        named = set()
    dots = [
        _Dot(
            ms=one.latency_ms or 0.0,
            score=one.score or 0.0,
            mark=str(one.number) if one.number in named | {searched.trial} else "",
            met=one.meets,
            chosen=one.number == searched.trial,
            side=_LEAST_SIDE + (_MOST_SIDE - _LEAST_SIDE) * ((one.size_bytes or 0) / largest) ** 0.5,
        )
        for one in known
    ]
    front = [dot for dot, one in zip(dots, known, strict=True) if one.on_front]
    says = f"Trials of the search: latency ({line(trials.latency_kind)}) against the score on the validation split."
    with canvas(7.2, 3.8) as plot:
        axes = plot.add_subplot()
        _scatter(axes, dots, sorted(front, key=lambda dot: dot.ms), joined=False)
        most = 1.5 * max(dot.ms for dot in dots)
        budgets = [(p, ms) for p, ms in trials.latency_budgets_ms.items() if ms <= most]
        for percentile, ms in budgets:
            axes.axvline(ms, color=COLOURS["fail"], linestyle="--", linewidth=1.2)
            axes.annotate(
                f"budget p{percentile}",
                (ms, 0),
                xycoords=("data", "axes fraction"),
                xytext=(4, 4),
                textcoords="offset points",
                color=COLOURS["fail"],
            )
        axes.set_ylabel(f"{short_name(trials.title)}, %")
        how = (
            "Filled: meets the budgets; ringed: on the Pareto front of accuracy, latency and size; diamond: this build"
        )
        best = next((one for one in known if one.number == searched.trial), None)
        own = ""
        if best is not None and best.score is not None:
            size = format_bytes(best.size_bytes or 0)
            own = f" This build is of trial {best.number}: {percent(best.score)}, {format_ms(best.latency_ms)}, {size}."
        said = f"{len(dots)} trials, {len(front)} on the front.{own}"
        svg = svg_of(plot, "pareto", says, said)
    return Figure("pareto", f"{says} {said} {how}; the larger, the larger the model.", svg, table)


def _front(dots: Sequence[_Dot]) -> list[_Dot]:
    """Those that no faster one beats, the fastest first."""
    ranked = sorted(dots, key=lambda dot: (dot.ms, -dot.score))
    return [dot for i, dot in enumerate(ranked) if all(dot.score > faster.score for faster in ranked[:i])]


def _scatter(axes: Axes, dots: Sequence[_Dot], front: Sequence[_Dot], joined: bool = True) -> None:
    """The dots, and the front as a line or, where it is one in more than two things, as rings."""
    if joined:
        axes.plot([t.ms for t in front], [100 * t.score for t in front], color=COLOURS["soft"], linewidth=1.2)
    for dot in sorted(dots, key=lambda dot: dot.chosen):
        colour = COLOURS["two" if dot.chosen else "one"]
        face, at = colour if dot.met else COLOURS["bg"], (dot.ms, 100 * dot.score)
        axes.plot(*at, "D" if dot.chosen else "o", color=colour, markerfacecolor=face, markersize=dot.side)
        if dot in front and not joined:
            axes.plot(*at, "o", color=COLOURS["soft"], markerfacecolor="none", markersize=dot.side + 6)
        if dot.mark:
            axes.annotate(dot.mark, at, xytext=(dot.side / 2 + 4, 4), textcoords="offset points", color=COLOURS["dim"])
    axes.set_xlabel("latency, ms")
    axes.margins(0.08, 0.12)
    axes.grid(alpha=0.6)


def _level(axes: Axes, value: float, name: str, colour: str) -> None:
    """A dashed line across, with its name at the right end."""
    axes.axhline(value, color=COLOURS[colour], linestyle="--", linewidth=1.2)
    axes.annotate(
        name,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        color=COLOURS[colour],
    )


def _restored(point: TrialPoint) -> str:
    return f"{point.restored}\n(trained)" if point.trained else str(point.restored)
