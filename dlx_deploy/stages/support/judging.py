"""A candidate as a row of what is compared: its score and evidence by its statistic, its size, its time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.stages.support.results import Latencies, Timing
from dlx_deploy.targets import Profile
from dlx_deploy.tasks.verification import REFERENCE, Comparison, Row

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.runtime.timing.latency import Latency

__all__ = ["estimated", "read_statistic", "row_of", "timings_of"]


def read_statistic(path: Path) -> Arrays:
    """The arrays of a statistic, a row for each sample, as ``evaluate`` and ``score`` write it."""
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def row_of(name: str, path: Path, comparison: Comparison, statistics: Mapping[str, Arrays]) -> Row:
    """The candidate ``name``, whose ONNX is at ``path``, beside the teacher; ``statistics`` by candidate."""
    from dlx_deploy.graph.analysis.cost import model_summary

    summary = model_summary(path)
    return Row(
        model=name,
        score=comparison.score(statistics[name]),
        evidence=comparison.evidence(statistics[REFERENCE], statistics[name]),
        size_bytes=summary.size_bytes,
        macs=summary.macs,
        parameters=summary.parameters,
    )


def timings_of(timed: Mapping[str, Latency]) -> tuple[Timing, ...]:
    """What was measured of each candidate."""
    return tuple(
        Timing(
            model=name,
            p50_ms=t.p50_ms,
            p90_ms=t.p90_ms,
            p90_upper_ms=t.p90_upper_ms,
            p90_lower_ms=t.p90_lower_ms or 0.0,
            by_slowest=t.by_slowest,
            percentiles=t.percentiles,
            histogram=t.histogram,
        )
        for name, t in timed.items()
    )


def estimated(models: Mapping[str, Path], target: Profile) -> Latencies:
    """What the roofline says of each candidate, and that it does."""
    from dlx_deploy.graph.analysis.cost import layer_costs
    from dlx_deploy.targets.roofline import NOT_MEASURED, estimate

    rows = []
    for name, path in models.items():
        guess = estimate(layer_costs(path), target)
        rows.append(Timing(model=name, p50_ms=guess.latency_ms, low_ms=guess.low_ms, high_ms=guess.high_ms))
    return Latencies(kind=NOT_MEASURED, where=target.title, rows=tuple(rows))
