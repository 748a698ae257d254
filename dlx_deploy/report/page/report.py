"""The report of one build: a typed value with three renderings, text, JSON and HTML."""

from __future__ import annotations

import msgspec

from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.report.page.facts import (
    Candidate,
    DataSeen,
    Layers,
    Models,
    Origin,
    Quantization,
    Searched,
    StepSeen,
    Verdicts,
)
from dlx_deploy.report.page.parts import Table
from dlx_deploy.report.page.spread import drawn_in_text, spread_words, spreads_of
from dlx_deploy.report.page.trials import points_table, points_words, search_table, search_words
from dlx_deploy.report.table import format_bytes, format_ms, format_seconds, format_table
from dlx_deploy.runtime.views import lines_of
from dlx_deploy.runtime.words import percent

__all__ = ["WORDS", "BuildReport", "candidate_rows", "figure_of", "gate_line", "number_of"]

WORDS = {
    "pass": "every budget is met",
    "fail": "a budget is missed",
    "undecided": "a budget is neither met nor missed: more samples or timings would tell",
    "pending": "what was judged is met; of the rest nothing is known here yet",
    "unfinished": "the build did not come to its end",
}
"""What an outcome means."""


class BuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """One build for one target. What is ``None`` was not kept: of a package alone, or of a build that ended early."""

    name: str
    version: str
    target: str
    target_title: str
    verdicts: Verdicts
    models: Models | None
    layers: Layers | None
    quantization: Quantization | None
    search: Searched | None = None
    data_set: DataSeen | None = msgspec.field(name="data")
    steps: tuple[StepSeen, ...]
    origin: Origin
    schema: int = 1

    @property
    def title(self) -> str:
        """Which build it is."""
        return f"{self.name} {self.version} for {self.target}".strip()

    @property
    def data(self) -> BuildReport:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """The verdicts, the models, how timings are spread, what was tried, and where it comes from."""
        head = [f"{self.title}: {self.verdicts.outcome.upper()}, {WORDS[self.verdicts.outcome]}"]
        head += [gate_line(gate) for gate in self.verdicts.gates]
        for board, proof in self.verdicts.boards.items():
            said = "; ".join([f"accuracy {proof.accuracy}", *(f"{x.metric} {x.verdict}" for x in proof.budgets)])
            head.append(f"shown by {board} on {proof.taken[:19]}: {said}")
        head += [f"error: {self.verdicts.error}"] if self.verdicts.error else []
        head += [f"note {note}" for note in self.verdicts.notes]
        parts = [lines_of(head), *self._models(), *self._tried(), *self._steps()]
        facts = [f"{name}: {value}" for name, value in self.origin.facts.items()]
        return "\n\n".join([*parts, lines_of(facts)])

    def _models(self) -> list[str]:
        if self.models is None:
            return []
        header, rows = candidate_rows(self.models)
        where = f"Latency at batch 1: {self.models.latency_kind}, {self.models.latency_where}."
        said = [where] if self.models.latency_kind else []
        said += [f"Distillation: {self.models.distillation}."] if self.models.distillation else []
        for spread in spreads_of(self.models, self.verdicts):
            said += [f"{spread_words(spread)}.", f"  {drawn_in_text(spread)}"]
        return ["\n".join([format_table(header, rows, right=range(1, len(header))), lines_of(said)]).rstrip()]

    def _tried(self) -> list[str]:
        """By quantization, where that was more than one graph, and by a search."""
        parts = []
        if self.quantization is not None and len(self.quantization.points) > 1:
            parts.append(_titled(points_words(self.quantization), points_table(self.quantization)))
        if self.search is not None:
            trials = self.search.trials
            table = search_table(self.search, trials) if trials else None
            parts.append(_titled(search_words(self.search), table))
        return parts

    def _steps(self) -> list[str]:
        rows = [
            [step.step, step.status, format_seconds(step.seconds), format_bytes(step.size_bytes), step.key[:12]]
            for step in self.steps
        ]
        return [format_table(["stage", "", "took", "size", "key"], rows, right=(2, 3))] if rows else []


def _titled(words: list[str], table: Table | None) -> str:
    if table is None:
        return lines_of(words)
    return "\n".join([lines_of(words), format_table(list(table.header), table.rows, right=table.right)])


def gate_line(gate: GateResult) -> str:
    """A verdict as a line."""
    return f"gate {gate.gate}: {gate.verdict}. {gate.text}"


def figure_of(gate: GateResult, value: float | None) -> str:
    """A figure of a verdict in the unit of its metric."""
    return number_of(gate.metric, value)


def number_of(metric: str, value: float | None) -> str:
    """``value`` in the unit that the name of ``metric`` ends with; a share of one where it has none."""
    if value is None:
        return "-"
    if metric.endswith("_ms"):
        return format_ms(value)
    if metric.endswith(("_mib", "_mj", "_per_s", "_w", "_s", "_bytes")):
        return f"{value:,.4g} {metric.rpartition('_')[2]}"
    if metric.endswith("_drop"):
        return f"{100 * value:.2f} points"
    return percent(value) if -1 <= value <= 1 else f"{value:,.4g}"


def candidate_rows(models: Models) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table of all models."""
    bound = f"at most ({100 * models.confidence:g} %)"
    header = ["model", models.title, "drop", bound, "size", "parameters", "MACs", "p50", "p90"]
    return header, [_cells(row) for row in models.candidates]


def _cells(row: Candidate) -> list[str]:
    p90_ms = row.latency.p90_ms if row.latency else None
    return [
        ("→ " if row.chosen else "") + row.model,
        percent(row.score),
        "" if row.drop is None else f"{100 * row.drop:.2f}",
        "" if row.drop_upper is None else f"{100 * row.drop_upper:.2f}",
        format_bytes(row.size_bytes),
        f"{row.parameters:,}",
        f"{row.macs:,}",
        ("~" if row.is_estimate else "") + format_ms(row.p50_ms),
        "pending" if row.is_estimate else format_ms(p90_ms),
    ]
