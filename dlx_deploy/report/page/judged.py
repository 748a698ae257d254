"""The models of a verification as a report has them: score, drop and its bound, size, latency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dlx_deploy.config import Config
from dlx_deploy.report.page.facts import Candidate, Models
from dlx_deploy.report.slices import slice_table
from dlx_deploy.stages.support.control import gain_of
from dlx_deploy.stages.support.results import Timing, read_latencies
from dlx_deploy.tasks import task_for
from dlx_deploy.tasks.judging import comparison_by
from dlx_deploy.tasks.verification import REFERENCE, Accuracy, Comparison, Row, read_accuracy

__all__ = ["candidates_of", "models_of"]


def models_of(config: Config, verify: Mapping[str, Path]) -> Models:
    """What ``verify`` found, judged as ``config`` says."""
    accuracy, latencies = read_accuracy(verify), read_latencies(verify)
    comparison, confidence = comparison_by(task_for(config.data), config.gate.metric), config.gate.confidence
    gain = gain_of(comparison, accuracy, confidence)
    timings = {timing.model: timing for timing in latencies.rows}
    return Models(
        title=accuracy.title,
        samples=accuracy.n,
        judge=accuracy.judge,
        confidence=confidence,
        max_drop=config.gate.max_drop,
        latency_kind=latencies.kind,
        latency_where=latencies.where,
        candidates=candidates_of(accuracy, comparison, confidence, timings),
        slices=slice_table(accuracy.each_slice),
        distillation=gain.text if gain else "",
    )


def candidates_of(
    accuracy: Accuracy, comparison: Comparison, confidence: float, timings: Mapping[str, Timing]
) -> tuple[Candidate, ...]:
    """Every model of ``accuracy``; ``timings``: of those whose latency is known."""
    return tuple(_candidate(row, accuracy, comparison, confidence, timings.get(row.model)) for row in accuracy.rows)


def _candidate(
    row: Row, accuracy: Accuracy, comparison: Comparison, confidence: float, timing: Timing | None
) -> Candidate:
    drop = None if row.model == REFERENCE else comparison.drop(row, accuracy, confidence)
    return Candidate(
        model=row.model,
        chosen=row.model == accuracy.shipped,
        score=row.score,
        drop=None if drop is None else drop.value,
        drop_upper=None if drop is None else drop.upper,
        size_bytes=row.size_bytes,
        parameters=row.parameters,
        macs=row.macs,
        latency=timing,
    )
