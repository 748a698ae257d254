"""Several reports side by side: what each says of the same thing, and where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.report.page.facts import Candidate
from dlx_deploy.report.page.parts import Page, Section, Table
from dlx_deploy.report.page.report import BuildReport, figure_of
from dlx_deploy.report.page.spread import Spread, drawn_in_text, spread_words, spreads_of
from dlx_deploy.report.table import format_bytes, format_ms, format_table
from dlx_deploy.runtime.views import lines_of
from dlx_deploy.runtime.words import percent

__all__ = ["DIFFERS", "compared_text", "comparison_page"]

DIFFERS = "≠"
"""Before what is not the same in all."""
_NONE = "-"
_TAIL = 99
_SPEED = ("Verdicts", "What is shipped", "Every model")
"""The parts that stand before how timings are spread."""

Facts = Mapping[str, str]


def compared_text(reports: Sequence[BuildReport]) -> str:
    """The tables of a comparison for a terminal; of configuration, versions and layers only what differs."""
    parts = []
    for title, table in _tables(reports):
        shown = [i for i in range(len(table.rows)) if i in table.marked or not table.folded]
        rows = [[DIFFERS if i in table.marked else "", *table.rows[i]] for i in shown]
        parts += [f"{title}\n{format_table(['', *table.header], rows)}"] if rows else []
    spreads = [text for one in _spreads(reports) for text in (f"{spread_words(one)}.", f"  {drawn_in_text(one)}")]
    return "\n\n".join([*parts, *(["\n".join(["How timings are spread", lines_of(spreads)])] if spreads else [])])


def comparison_page(reports: Sequence[BuildReport], identity: str) -> Page:
    """The page that shows ``reports`` side by side."""
    from dlx_deploy.report.page.latency_figures import distribution

    sections = [
        Section(f"part{number}", title, tables=[_signed(table)])
        for number, (title, table) in enumerate(_tables(reports))
        if table.rows
    ]
    if drawn := [distribution(number, spread) for number, spread in enumerate(_spreads(reports))]:
        behind = sum(section.title in _SPEED for section in sections)
        sections.insert(behind, Section("spreads", "How timings are spread", figures=drawn))
    return Page(
        title=" · ".join(_names(reports)),
        subtitle=f"{len(reports)} builds side by side; rows that differ are marked {DIFFERS}.",
        outcome="",
        says="",
        identity=identity,
        sections=sections,
    )


def _spreads(reports: Sequence[BuildReport]) -> Iterator[Spread]:
    """What ships in each, as timed with its build and on boards."""
    for name, report in zip(_names(reports), reports, strict=True):
        for spread in spreads_of(report.models, report.verdicts):
            yield replace(spread, what=f"{name}: {spread.what}")


def _signed(table: Table) -> Table:
    """With the sign too: colour alone says nothing to many."""
    rows = [[f"{DIFFERS} {row[0]}" if i in table.marked else row[0], *row[1:]] for i, row in enumerate(table.rows)]
    folded = f"{table.folded}: {len(table.marked)} differ" if table.folded else ""
    return Table(table.header, rows, marked=table.marked, folded=folded)


def _tables(reports: Sequence[BuildReport]) -> Iterator[tuple[str, Table]]:
    yield "Verdicts", _side_by_side(reports, _verdicts)
    yield "What is shipped", _side_by_side(reports, _shipped)
    yield "Every model", _side_by_side(reports, _models)
    yield "What was tried", _side_by_side(reports, _tried)
    yield "Layers", _side_by_side(reports, _layers, "Layers and their precision")
    yield "Steps", _side_by_side(reports, lambda report: {step.step: step.key[:12] for step in report.steps})
    yield "Provenance", _side_by_side(reports, lambda report: report.origin.facts, "Where they come from")
    yield "Libraries", _side_by_side(reports, lambda report: report.origin.tools, "Versions")
    yield "Configuration", _side_by_side(reports, lambda report: report.origin.config, "Keys")


def _side_by_side(reports: Sequence[BuildReport], facts: Callable[[BuildReport], Facts], folded: str = "") -> Table:
    """A row for each fact that one of them has, in the order in which they come up."""
    columns = [facts(report) for report in reports]
    known = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, _NONE) for column in columns)] for name in known]
    marked = frozenset(i for i, (_, *cells) in enumerate(rows) if len(set(cells)) > 1)
    return Table(["", *_names(reports)], rows, marked=marked, folded=folded)


def _names(reports: Sequence[BuildReport]) -> list[str]:
    """What tells them apart: the titles, and the packages where these are the same."""
    titles = [report.title for report in reports]
    if len(set(titles)) == len(titles):
        return titles
    return [f"{i}: {report.origin.facts.get('package', report.title)}" for i, report in enumerate(reports, 1)]


def _verdicts(report: BuildReport) -> Facts:
    gates = {gate.gate: _verdict(gate) for gate in report.verdicts.gates}
    return {"all": report.verdicts.outcome, **gates}


def _verdict(gate: GateResult) -> str:
    value, bound, limit = (figure_of(gate, number) for number in (gate.value, gate.bound, gate.limit))
    return f"{gate.verdict}: {value}, bound {bound}, limit {limit}"


def _shipped(report: BuildReport) -> Facts:
    facts = {"target": report.target_title or report.target}
    facts |= {"precision": report.layers.precision.upper()} if report.layers else {}
    if report.layers:
        counted = Counter(layer.precision.upper() for layer in report.layers.layers)
        facts["layers"] = ", ".join(f"{count} {kind}" for kind, count in counted.most_common())
    chosen = next((row for row in report.models.candidates if row.chosen), None) if report.models else None
    if chosen is None or report.models is None:
        return facts
    p90_ms = chosen.latency.p90_ms if chosen.latency else None
    known = chosen.latency.percentiles if chosen.latency else ()
    p99_ms = next((one.ms for one in known if one.percentile == _TAIL), None)
    return {
        **facts,
        "model": chosen.model,
        report.models.title: percent(chosen.score),
        "test samples": f"{report.models.samples:,}",
        "drop": _points(chosen.drop),
        "drop at most": _points(chosen.drop_upper),
        "ONNX": format_bytes(chosen.size_bytes),
        "parameters": f"{chosen.parameters:,}",
        "MACs": f"{chosen.macs:,}",
        "latency p50": _latency(chosen),
        "latency p90": format_ms(p90_ms),
        "latency p99": format_ms(p99_ms),
        "latency": report.models.latency_kind or _NONE,
    }


def _points(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.2f} points"


def _latency(row: Candidate) -> str:
    return ("~" if row.is_estimate else "") + format_ms(row.p50_ms)


def _models(report: BuildReport) -> Facts:
    rows = report.models.candidates if report.models else ()
    return {row.model: f"{percent(row.score)}, {format_bytes(row.size_bytes)}, {_latency(row)}" for row in rows}


def _tried(report: BuildReport) -> Facts:
    """By quantization, and by the search that chose the configuration."""
    facts, seen, search = dict[str, str](), report.quantization, report.search
    if seen is not None and seen.points:
        chosen = next((point for point in seen.points if point.chosen), None)
        facts["graphs in INT8"] = f"{len(seen.points)} tried"
        facts["of which shipped"] = f"{chosen.restored} layers restored" if chosen else "none"
    if search is not None:
        facts |= {
            "search": search.study,
            "trial": str(search.trial),
            "changed since": "; ".join(search.changed) or "no",
        }
    return facts


def _layers(report: BuildReport) -> Facts:
    return {layer.name: layer.precision for layer in report.layers.layers} if report.layers else {}
