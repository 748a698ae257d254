"""The result of a build as the table that people want to see: accuracy, size, latency, the drop and its bound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from dlx_deploy.config import Config
from dlx_deploy.report.slices import draw_slices
from dlx_deploy.report.table import format_bytes, format_ms, format_table
from dlx_deploy.runtime.statistics.flips import Flips
from dlx_deploy.runtime.statistics.groups import Group, describe_worst
from dlx_deploy.runtime.statistics.scored import Scored
from dlx_deploy.stages.support.control import gain_of
from dlx_deploy.stages.support.results import Timing, read_latencies
from dlx_deploy.tasks import task_for
from dlx_deploy.tasks.flips import flips_of
from dlx_deploy.tasks.judging import comparison_by
from dlx_deploy.tasks.verification import REFERENCE, Drop, Row, read_accuracy

__all__ = ["ResultRow", "Results", "read_results"]


class ResultRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model: its score on the test split (0..1), beside the teacher's; size of its ONNX; latency at batch 1.

    ``flips``: how many answers are others than the teacher's, where a task counts that. ``candidate``: compile chose
    it; ``shipped``: and it is in a package, because every gate passed.
    """

    model: str
    candidate: bool
    shipped: bool
    score: float
    drop: float
    drop_upper: float
    flips: Flips | None = None
    size_bytes: int
    parameters: int
    macs: int
    latency: Timing


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification says of each model. ``metric``: what scores are, ``metric_title``: for people.

    ``classes``: what each class of the candidate lost and gained, where that is counted, ``class_scores``: the metric
    of each, where it is not; ``slices`` and ``slice_scores``: likewise of each slice of ``data.slices``.
    ``distillation``: what it gave, as a sentence; empty without a control.
    """

    target: str
    metric: str
    metric_title: str
    test_samples: int
    judge: str
    confidence: float
    latency_kind: str
    latency_where: str
    rows: tuple[ResultRow, ...]
    classes: tuple[Group, ...] = ()
    class_scores: tuple[Scored, ...] = ()
    slices: tuple[Group, ...] = ()
    slice_scores: tuple[Scored, ...] = ()
    distillation: str = ""

    @property
    def data(self) -> Results:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """The table and the lines that say how to read it."""
        return _draw(self)


def read_results(target: str, outputs: Mapping[str, Path], config: Config, packaged: bool = True) -> Results:
    """The outputs of a finished ``verify`` step of ``config``, with each model's drop and its upper bound.

    ``packaged``: whether the gates let the candidate into a package.
    """
    accuracy, latencies = read_accuracy(outputs), read_latencies(outputs)
    comparison, confidence = comparison_by(task_for(config.data), config.gate.metric), config.gate.confidence
    timings = {timing.model: timing for timing in latencies.rows}
    gain = gain_of(comparison, accuracy, confidence)
    return Results(
        distillation=gain.text if gain else "",
        classes=() if isinstance(accuracy.classes, msgspec.UnsetType) else accuracy.classes,
        class_scores=() if isinstance(accuracy.class_scores, msgspec.UnsetType) else accuracy.class_scores,
        slices=() if isinstance(accuracy.slices, msgspec.UnsetType) else accuracy.slices,
        slice_scores=() if isinstance(accuracy.slice_scores, msgspec.UnsetType) else accuracy.slice_scores,
        target=target,
        metric=accuracy.metric,
        metric_title=accuracy.title,
        test_samples=accuracy.n,
        judge=accuracy.judge,
        confidence=confidence,
        latency_kind=latencies.kind,
        latency_where=latencies.where,
        rows=tuple(
            _row(
                row,
                comparison.drop(row, accuracy, confidence),
                flips_of(row, accuracy.n),
                timings[row.model],
                row.model == accuracy.shipped,
                packaged,
            )
            for row in accuracy.rows
        ),
    )


def _draw(results: Results) -> str:
    percent = f"{100 * results.confidence:g} %"
    header = ["model", results.metric_title, "drop", f"at most ({percent})", "size", "p50", "p90"]
    rows = [_cells(row) for row in results.rows]
    arrow = "→ is shipped" if any(row.shipped for row in results.rows) else "→ was chosen, and is not shipped"
    arithmetic = "exact Q/DQ arithmetic" if results.judge == "exact-qdq" else "this machine's own kernels"
    title = results.metric_title.capitalize() if results.metric_title.islower() else results.metric_title
    notes = [
        f"{arrow}. {title} on {results.test_samples} test samples, {arithmetic}; drop against the teacher, in points.",
        f"Latency at batch 1: {results.latency_kind}, {results.latency_where}.",
    ]
    notes += [f"Flips of {row.model}: {row.flips.describe()}." for row in results.rows if row.candidate and row.flips]
    if worst := describe_worst(results.classes or results.class_scores, "Classes"):
        notes.append(f"{worst}.")
    if results.distillation:
        notes.append(f"Distillation: {results.distillation}.")
    if results.latency_kind != "measured":
        notes.append(
            "The measured latency is pending until the board measures it: python PACKAGE bench there, or from here "
            "dlx-deploy verify X.dlx --data DIR --on ssh://user@board"
        )
    drawn = [format_table(header, rows, right=(1, 2, 3, 4, 5, 6)), *notes]
    return "\n".join([*drawn, *draw_slices(results.slices or results.slice_scores)])


def _row(row: Row, drop: Drop, flips: Flips | None, timing: Timing, candidate: bool, packaged: bool) -> ResultRow:
    return ResultRow(
        model=row.model,
        candidate=candidate,
        shipped=candidate and packaged,
        score=row.score,
        drop=drop.value,
        drop_upper=drop.upper,
        flips=flips,
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
        f"{100 * row.score:.2f} %",
        "" if teacher else f"{100 * row.drop:.2f}",
        "" if teacher else f"{100 * row.drop_upper:.2f}",
        format_bytes(row.size_bytes),
        ("~" if estimate else "") + format_ms(row.latency.p50_ms),
        "pending" if estimate else format_ms(row.latency.p90_ms),
    ]
