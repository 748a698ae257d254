"""The plots of latency: percentiles of every model, and how the timings of what ships are spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlx_deploy.report.page.facts import Models
from dlx_deploy.report.page.figures import name_rows
from dlx_deploy.report.page.parts import Figure, Table
from dlx_deploy.report.page.spread import Spread, spread_table, spread_words
from dlx_deploy.report.page.svg import COLOURS, canvas, svg_of
from dlx_deploy.report.table import format_ms
from dlx_deploy.runtime.words import line
from dlx_deploy.stages.support.results import Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["distribution", "latencies"]

_MOST_SPREAD = 1.5
"""A plot of latencies ends at so many times the largest p90, or end of an estimate."""
_FAR = 2.0
"""A bound or budget is drawn up to so many times as far right as the bars; further ones are told."""
_STYLES = {50: "-", 90: "--", 99: ":"}


def latencies(models: Models, table: Table) -> Figure:
    """Each model's p50 and p90 with its bounds, or the range of an estimate."""
    known = [(row, row.latency) for row in models.candidates if row.latency is not None]
    estimated = any(row.is_estimate for row, _ in known)
    measured = "Latency: p50 (dot), p90 (bar) and the bounds on p90 (line; one that leaves the plot goes on)."
    title = "Latency: the estimate and its range." if estimated else measured
    with canvas(7.2, 0.75 + 0.3 * len(known)) as plot:
        axes = plot.add_subplot()
        for y, (row, timing) in enumerate(known):
            _time(axes, y, timing, COLOURS["two" if row.chosen else "one"])
        # A bound from the slowest of few timings may be so far off that the rest would be a dot.
        axes.set_xlim(0, max(_MOST_SPREAD * (of.high_ms or of.p90_ms or of.p50_ms) for _, of in known))
        name_rows(axes, [row.model for row, _ in known])
        axes.set_xlabel("ms")
        axes.grid(axis="x", alpha=0.6)
        said = "; ".join(f"{row.model} p50 {format_ms(of.p50_ms)}, p90 {format_ms(of.p90_ms)}" for row, of in known)
        svg = svg_of(plot, "latencies", title, line(said) + ".")
    return Figure("latencies", title, svg, table)


def _time(axes: Axes, y: int, timing: Timing, colour: str) -> None:
    """A row: the range of an estimate, or p90 and its bounds; a bound that is not known ends at p90."""
    low, high = timing.low_ms, timing.high_ms
    if timing.p90_ms is not None:
        low, high = timing.p90_lower_ms or timing.p90_ms, timing.p90_upper_ms or timing.p90_ms
        axes.plot([timing.p90_ms], [y], "|", color=colour, markersize=12, markeredgewidth=2)
    if low is not None and high is not None:
        axes.plot([low, high], [y, y], color=colour, linewidth=2.5)
    axes.plot([timing.p50_ms], [y], "o", color=colour)


def distribution(number: int, spread: Spread) -> Figure:
    """The histogram of ``spread``, its percentiles, the bounds on them and their budgets."""
    seen, bars = spread.histogram, spread.histogram.counts
    starts = [seen.fastest_ms + i * seen.width_ms for i in range(len(bars))]
    width = seen.width_ms or 0.02 * seen.fastest_ms
    end, name = starts[-1] + width, f"spread-{number}"
    title = f"How the timings of {spread.what} are spread: how many took so long."
    with canvas(7.2, 2.9) as plot:
        axes = plot.add_subplot()
        axes.bar(starts, bars, width=width, align="edge", color=COLOURS["one"], alpha=0.75)
        for percentile, ms in spread.percentiles.items():
            told = f"p{percentile} {format_ms(ms)}"
            axes.axvline(ms, color=COLOURS["fg"], linestyle=_STYLES.get(percentile, "-"), linewidth=1.4, label=told)
        far = [f"{seen.slower:,} of the timings, up to {format_ms(seen.slowest_ms)}"] if seen.slower else []
        for marks, word, colour in ((spread.bounds, "bound of", "two"), (spread.budgets, "budget of", "fail")):
            for percentile, ms in marks.items():
                told = f"{word} p{percentile} {format_ms(ms)}"
                if ms > _FAR * (starts[-1] + width):
                    far.append(f"the {told}")
                    continue
                axes.axvline(ms, color=COLOURS[colour], linestyle="-.", linewidth=1.6, label=told)
                end = max(end, 1.02 * ms)
        axes.set_xlim(max(0.0, seen.fastest_ms - width), end + width)
        axes.set_xlabel("ms")
        axes.set_ylabel("timings")
        plot.legend(loc="outside upper left", ncols=3, handlelength=2)
        svg = svg_of(plot, name, title, spread_words(spread) + ".")
    beyond = f" Further right: {', '.join(far)}." if far else ""
    return Figure(name, f"{title}{beyond}", svg, spread_table(spread))
