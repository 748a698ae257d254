"""The plots of the page on one build, each with what it shows in words and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dlx_deploy.report.page.facts import Candidate, Layers, Models, StepSeen
from dlx_deploy.report.page.parts import Figure, Table
from dlx_deploy.report.page.svg import COLOURS, canvas, svg_of
from dlx_deploy.report.table import format_bytes, format_ms
from dlx_deploy.runtime.words import line, percent, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curves", "name_rows", "sensitivities", "short_name", "spent", "strip", "waterfall"]

_MOST_BARS = 30
"""Layers in a plot; the table behind it has all."""
_MOST_NAME = 34
"""Characters of a name in a plot."""


def spent(models: Models) -> Figure:
    """Each model's drop with its one-sided bound, against the budget."""
    rows = [row for row in models.candidates if row.drop is not None and row.drop_upper is not None]
    budget = 100 * (models.max_drop or 0.0)
    level = f"{100 * models.confidence:g} % confidence"
    title = f"Drop against the teacher in points: measured, and its upper bound at {level}; the line is the budget."
    with canvas(7.2, 0.75 + 0.3 * len(rows)) as plot:
        axes = plot.add_subplot()
        for y, row in enumerate(rows):
            value, upper = 100 * (row.drop or 0.0), 100 * (row.drop_upper or 0.0)
            colour = COLOURS["one"] if upper <= budget else COLOURS["fail"]
            axes.plot([value, upper], [y, y], color=colour, linewidth=2.5)
            axes.plot([value], [y], "o", color=colour)
            axes.plot([upper], [y], "|", color=colour, markersize=11, markeredgewidth=2)
        axes.axvline(budget, color=COLOURS["fail"], linestyle="--", linewidth=1.2)
        axes.axvline(0, color=COLOURS["line"], linewidth=1)
        axes.annotate(
            f"budget {budget:g}",
            (budget, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            color=COLOURS["fail"],
            va="bottom",
        )
        name_rows(axes, [row.model for row in rows])
        axes.set_xlabel("points")
        said = "; ".join(f"{row.model} {points(row.drop or 0)}, at most {points(row.drop_upper or 0)}" for row in rows)
        svg = svg_of(plot, "spent", title, f"Budget {budget:g} points. {line(said)}.")
    cells = [[row.model, points(row.drop or 0), points(row.drop_upper or 0)] for row in rows]
    return Figure("spent", title, svg, Table(["model", "drop", "at most"], cells, right=(1, 2), folded="The numbers"))


def waterfall(models: Models, table: Table) -> Figure:
    """Accuracy, latency and size, from the teacher down to what is shipped."""
    rows, title = models.candidates, f"{_capital(line(models.title))}, latency and size, stage by stage."
    panels: list[tuple[str, Callable[[Candidate], float | None], Callable[[float], str]]] = [
        (f"{line(models.title)}, %", lambda row: 100 * row.score, lambda value: f"{value:.2f}"),
        ("size of the ONNX, MiB", lambda row: row.size_bytes / 2**20, lambda value: format_bytes(value * 2**20)),
    ]
    if any(row.latency for row in rows):
        panels.insert(1, ("latency p50, ms", lambda row: row.p50_ms, format_ms))
    with canvas(8.6, 0.8 + 0.34 * len(rows)) as plot:
        drawn = plot.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (heading, value, written) in zip(drawn, panels, strict=True):
            values = [value(row) or 0.0 for row in rows]
            colours = [COLOURS["two" if row.chosen else "one"] for row in rows]
            bars = axes.barh(range(len(rows)), values, color=colours, height=0.62)
            axes.bar_label(bars, [written(number) for number in values], padding=3, color=COLOURS["fg"])
            axes.set_xlim(0, max(values, default=1.0) * 1.38 or 1.0)
            axes.set_title(heading, loc="left", fontsize=9)
            axes.set_xticks([])
            axes.spines["bottom"].set_visible(False)
        name_rows(drawn[0], [row.model for row in rows])
        said = "; ".join(
            f"{row.model} {percent(row.score)}, {format_ms(row.p50_ms)}, {format_bytes(row.size_bytes)}" for row in rows
        )
        svg = svg_of(plot, "waterfall", title, line(said) + ".")
    return Figure("waterfall", title, svg, table)


def curves(step: StepSeen, table: Table) -> Figure:
    """How one step trained: a panel for each metric."""
    title = f"How {line(step.step)} trained: {', '.join(map(line, step.curves))} by epoch."
    with canvas(8.6, 2.2) as plot:
        drawn = plot.subplots(1, len(step.curves), squeeze=False)[0]
        for axes, (name, values), ink in zip(drawn, step.curves.items(), ("one", "two") * 8, strict=False):
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, "." if len(values) == 1 else "-", color=COLOURS[ink], linewidth=1.6)
            axes.set_title(line(name).replace("_", " "), loc="left", fontsize=9)
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.6)
        ends = (
            f"{line(name)} from {values[0]:.4g} to {values[-1]:.4g}" for name, values in step.curves.items() if values
        )
        svg = svg_of(plot, f"curves-{_anchor(step.step)}", title, "; ".join(ends) + ".")
    return Figure(f"curves-{_anchor(step.step)}", title, svg, table)


def _anchor(name: str) -> str:
    """``name`` as part of an id: other characters as their numbers, so that no two are alike."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "-") else f"_{ord(c):x}" for c in name)


def strip(layers: Layers, table: Table) -> Figure:
    """The precision of every layer, in the order of the graph."""
    kinds = list(dict.fromkeys(layer.precision for layer in layers.layers))
    title = "Precision of every layer, in the order of the graph from left to right."
    with canvas(8.6, 0.9) as plot:
        axes = plot.add_subplot()
        names = ("one", "two", "three", "four", "soft")
        for kind, name in zip(kinds, names * len(kinds), strict=False):
            at = [(i, 0.86) for i, layer in enumerate(layers.layers) if layer.precision == kind]
            axes.broken_barh(at, (0, 1), facecolors=COLOURS[name], label=kind.upper())
        axes.set_xlim(0, len(layers.layers))
        axes.axis("off")
        plot.legend(loc="outside upper left", ncols=max(len(kinds), 1), handlelength=1)
        said = "; ".join(
            f"{sum(layer.precision == kind for layer in layers.layers)} layers in {kind.upper()}" for kind in kinds
        )
        svg = svg_of(plot, "strip", title, line(said) + ".")
    return Figure("strip", title, svg, table)


def sensitivities(layers: Layers, table: Table) -> Figure:
    """The layers that cost most in INT8."""
    known = sorted((x for x in layers.layers if x.sqnr_db is not None), key=lambda layer: layer.sqnr_db or 0.0)
    shown = known[:_MOST_BARS]
    title = f"The {len(shown)} layers that cost most in INT8: SQNR of the answers in dB, the lower the costlier."
    with canvas(7.2, 0.8 + 0.2 * len(shown)) as plot:
        axes = plot.add_subplot()
        for restored, name, meaning in ((False, "one", "in INT8"), (True, "two", "restored to floating point")):
            at = [i for i, layer in enumerate(shown) if layer.restored is restored]
            if at:
                axes.barh(at, [shown[i].sqnr_db or 0.0 for i in at], color=COLOURS[name], height=0.7, label=meaning)
        name_rows(axes, [layer.name for layer in shown])
        axes.set_xlabel("dB")
        plot.legend(loc="outside upper right", ncols=2)
        said = ", ".join(f"{layer.name} {layer.sqnr_db:.1f} dB" for layer in shown[:5])
        svg = svg_of(plot, "sensitivities", title, line(said) + ".")
    return Figure("sensitivities", title, svg, Table(table.header, table.rows, table.right, folded="Every layer"))


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """A row for each name, the first on top."""
    axes.set_yticks(range(len(names)), [short_name(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(length=0)


def short_name(name: str) -> str:
    """The end of a long name, which tells layers apart."""
    name = line(name)
    return name if len(name) <= _MOST_NAME else f"…{name[1 - _MOST_NAME :]}"


def _capital(title: str) -> str:
    return title.capitalize() if title.islower() else title
