"""The result of a build as the table that people want to see: accuracy, size, latency, the drop and its bound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from dlx_deploy.config import Gate
from dlx_deploy.report.table import format_bytes, format_ms, format_table
from dlx_deploy.stages.support.results import REFERENCE, Accuracy, Row, Timing, read_accuracy, read_latencies

__all__ = ["ResultRow", "Results", "read_results"]


class ResultRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model: accuracy on the test split, paired with the teacher; size of its ONNX; latency at batch 1.

    ``candidate``: compile chose it; ``shipped``: and it is in a package, because every gate passed.
    """

    model: str
    candidate: bool
    shipped: bool
    top1: float
    drop: float
    drop_upper: float
    size_bytes: int
    parameters: int
    macs: int
    latency: Timing


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification says of each model."""

    target: str
    test_samples: int
    judge: str
    confidence: float
    latency_kind: str
    latency_where: str
    rows: tuple[ResultRow, ...]

    @property
    def data(self) -> Results:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """The table and the lines that say how to read it."""
        return _draw(self)


def read_results(target: str, outputs: Mapping[str, Path], budgets: Gate, packaged: bool = True) -> Results:
    """The outputs of a finished ``verify`` step, with each model's drop and its upper bound.

    ``packaged``: whether the gates let the candidate into a package.
    """
    accuracy, latencies = read_accuracy(outputs), read_latencies(outputs)
    timings = {timing.model: timing for timing in latencies.rows}
    return Results(
        target=target,
        test_samples=accuracy.n,
        judge=accuracy.judge,
        confidence=budgets.confidence,
        latency_kind=latencies.kind,
        latency_where=latencies.where,
        rows=tuple(
            msgspec.structs.replace(row, shipped=row.candidate and packaged)
            for row in (_row(r, accuracy, timings[r.model], budgets) for r in accuracy.rows)
        ),
    )


def _draw(results: Results) -> str:
    percent = f"{100 * results.confidence:g} %"
    header = ["model", "top-1", "drop", f"at most ({percent})", "size", "p50", "p90"]
    rows = [_cells(row) for row in results.rows]
    arrow = "→ is shipped" if any(row.shipped for row in results.rows) else "→ was chosen, and is not shipped"
    arithmetic = "exact Q/DQ arithmetic" if results.judge == "exact-qdq" else "this machine's own kernels"
    notes = [
        f"{arrow}. Top-1 on {results.test_samples} test samples, {arithmetic}; drop against the teacher, in points.",
        f"Latency at batch 1: {results.latency_kind}, {results.latency_where}.",
    ]
    if results.latency_kind != "measured":
        notes.append("The measured latency is pending until the board measures it: python PACKAGE bench")
    return "\n".join([format_table(header, rows, right=(1, 2, 3, 4, 5, 6)), *notes])


def _row(row: Row, accuracy: Accuracy, timing: Timing, budgets: Gate) -> ResultRow:
    from dlx_deploy.runtime.statistics.drops import drop_upper_bound

    return ResultRow(
        model=row.model,
        candidate=row.model == accuracy.shipped,
        shipped=row.model == accuracy.shipped,
        top1=row.top1,
        drop=(row.b - row.c) / accuracy.n,
        drop_upper=drop_upper_bound(row.b, row.c, accuracy.n, budgets.confidence),
        size_bytes=row.size_bytes,
        parameters=row.parameters,
        macs=row.macs,
        latency=timing,
    )


def _cells(row: ResultRow) -> list[str]:
    teacher = row.model == REFERENCE
    estimate = row.latency.low_ms is not None
    return [
        ("→ " if row.candidate else "  ") + row.model,
        f"{100 * row.top1:.2f} %",
        "" if teacher else f"{100 * row.drop:.2f}",
        "" if teacher else f"{100 * row.drop_upper:.2f}",
        format_bytes(row.size_bytes),
        ("~" if estimate else "") + format_ms(row.latency.p50_ms),
        "pending" if estimate else format_ms(row.latency.p90_ms),
    ]
