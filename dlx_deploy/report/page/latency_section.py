"""The section on latency: percentiles and bounds of every model, and how timings are spread."""

from __future__ import annotations

import msgspec

from dlx_deploy.report.page.facts import Models
from dlx_deploy.report.page.latency_figures import distribution, latencies
from dlx_deploy.report.page.parts import Section, Table
from dlx_deploy.report.page.report import BuildReport
from dlx_deploy.report.page.spread import spreads_of
from dlx_deploy.report.table import format_ms

__all__ = ["latency_section"]


def latency_section(report: BuildReport) -> Section | None:
    """How fast each model is, and how the timings of what ships are spread."""
    models, spreads = report.models, list(spreads_of(report.models, report.verdicts))
    drawn = [distribution(number, spread) for number, spread in enumerate(spreads)]
    if models is None or all(row.p50_ms is None for row in models.candidates):
        return Section("latency", "Latency", figures=drawn) if drawn else None
    text = [f"At batch 1: {models.latency_kind}, {models.latency_where}."]
    if any(row.is_estimate for row in models.candidates):
        text.append("An estimate passes no gate: the target has yet to measure it, by dlx-deploy bench PACKAGE there.")
    return Section("latency", "Latency", text, figures=[latencies(models, _timings(models)), *drawn])


def _timings(models: Models) -> Table:
    """Whatever is known of each model's latency, under the names that ``latency.json`` has for it."""
    known = [(row.model, _times_of(msgspec.to_builtins(row.latency))) for row in models.candidates if row.latency]
    names = list(dict.fromkeys(name for _, of in known for name in of))
    rows = [[model, *(format_ms(of.get(name)) for name in names)] for model, of in known]
    caption = "Latency of every model"
    return Table(["model", *names], rows, right=range(1, len(names) + 1), folded="The numbers", caption=caption)


def _times_of(timing: dict[str, float | None], before: str = "") -> dict[str, float]:
    """Label → milliseconds, those of each percentile under its number."""
    found = dict[str, float]()
    for name, value in timing.items():
        if name == "ms" and isinstance(value, (int, float)):
            found[before.strip()] = value
        elif name.endswith("_ms") and isinstance(value, (int, float)):
            found[f"{before}{name.removesuffix('_ms').replace('_', ' ')}"] = value
        elif isinstance(value, (list, tuple)):
            for one in value:
                found |= _times_of(one, f"p{one.get('percentile', '')} ") if isinstance(one, dict) else {}
    return found
