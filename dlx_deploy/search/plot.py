"""The trials of a search as a picture: latency against accuracy, in SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence

from dlx_deploy.report.table import format_bytes
from dlx_deploy.search.outcome import Figures
from dlx_deploy.search.view import SearchView, TrialRow

__all__ = ["plot"]

STYLES = {
    "misses a budget": {"color": "#b8b8b8", "marker": "o"},
    "meets the budgets": {"color": "#5f9ea0", "marker": "o"},
    "Pareto front": {"color": "#00695c", "marker": "o"},
    "chosen": {"color": "#d84315", "marker": "D"},
}
"""In the order in which they are drawn, the last on top."""
LEAST_AREA, MOST_AREA = 25.0, 200.0
"""Of a marker, in square points: the area stands for the size of the model."""


def plot(view: SearchView) -> bytes:
    """SVG, the same bytes for the same trials and the same matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = [row for row in view.trials if row.figures is not None]
    with matplotlib.rc_context(
        {"svg.hashsalt": "dlx-deploy", "svg.fonttype": "none", "font.size": 9, "text.parse_math": False}
    ):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for name, style in STYLES.items():
            group = [row for row in rows if _group(row, view) == name]
            if group:
                _draw(axes, group, rows, name, style)
        _label(axes, [row for row in rows if row.on_front], view)
        axes.set_title(f"{view.target}: {len(rows)} trials", loc="left")
        axes.grid(alpha=0.25)
        figure.legend(loc="outside lower center", ncols=len(STYLES), frameon=False)
        text = io.BytesIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _group(row: TrialRow, view: SearchView) -> str:
    if row.number == view.chosen:
        return "chosen"
    if row.on_front:
        return "Pareto front"
    return "misses a budget" if row.misses else "meets the budgets"


def _of(rows: Sequence[TrialRow]) -> list[Figures]:
    return [row.figures for row in rows if row.figures is not None]


def _draw(axes: object, group: Sequence[TrialRow], rows: Sequence[TrialRow], name: str, style: dict[str, str]) -> None:
    largest = max(figures.size_bytes for figures in _of(rows))
    areas = [LEAST_AREA + (MOST_AREA - LEAST_AREA) * one.size_bytes / largest for one in _of(group)]
    x, y = [one.latency_ms for one in _of(group)], [100 * one.score for one in _of(group)]
    axes.scatter(x, y, s=areas, label=name, alpha=0.85, edgecolors="white", linewidths=0.6, **style)  # type: ignore[attr-defined]


def _label(axes: object, front: Sequence[TrialRow], view: SearchView) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    for row, one in zip(front, _of(front), strict=True):
        text = f"{row.number} ({format_bytes(one.size_bytes)})"
        axes.annotate(text, (one.latency_ms, 100 * one.score), xytext=(6, 5), textcoords="offset points", fontsize=7)
    limit = view.max_latency_p90_ms
    if limit:
        axes.axvline(limit, color="#d84315", linewidth=0.8, linestyle="--")
        axes.annotate("budget", (limit, 0.02), xycoords=("data", "axes fraction"), fontsize=7, color="#d84315")
    known = _of(view.trials)
    kind = known[0].latency_kind if known else ""
    axes.set_xlabel(f"latency at batch 1, p50, in ms: {kind}")
    title = known[0].title if known else "score"
    axes.set_ylabel(f"{title} on the validation split, in %")
