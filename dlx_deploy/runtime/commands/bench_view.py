"""The view of a package's latency: typed values, from which the text and the JSON are made."""

from __future__ import annotations

from typing import Optional, Sequence

from ..errors import RuntimeFault
from ..package.contents import Package
from ..records import record
from ..timing.latency import CONFIDENCE, Percentile
from ..untyped import JsonTable
from ..views import lines_of
from .bench import BenchResult
from .prediction_views import head_of
from .resources import Resources

__all__ = ["BenchView"]


@record
class BenchView:
    """A latency, and the verdict if there is a budget."""

    package: Package
    result: BenchResult

    @property
    def failure(self) -> Optional[RuntimeFault]:
        """The budget that is missed, or that cannot be decided."""
        return self.result.failure()

    @property
    def data(self) -> JsonTable:
        """The percentiles, their bounds, and the machine."""
        return {**head_of(self.package), **self.result.to_dict()}

    @property
    def text(self) -> str:
        """Where it was measured, the percentiles, and the verdict."""
        result, seen = self.result, self.result.latency
        noun = self.package.task.inputs.noun
        batch = f"batch {result.batch}" + f", {result.streams} streams at once" * (result.streams > 1)
        if result.inputs:
            batch += f", each read from what was given ({result.inputs} {noun} in turn)"
        lines = [
            f"measured on {result.machine['label']} (package built for {self.package.target})",
            f"{batch}: p50 {seen.p50_ms:.4f} ms, p90 {seen.p90_ms:.4f} ms, p99 {seen.p99_ms:.4f} ms, "
            f"{result.images_per_second:.0f} {noun}/s",
        ]
        told = [*_parts(result, noun), *_bounds(result), *_taken(result.resources, noun)]
        return lines_of([*lines, *told, *(one.text for one in result.judged)])


def _parts(result: BenchResult, noun: str) -> Sequence[str]:
    """Where the time of a call goes, throughput at other batch sizes, and cold starts."""
    told = []
    if result.phases:
        phases = result.phases
        told.append(
            f"of which {phases.pre_ms:.4f} ms prepare, {phases.inference_ms:.4f} ms run the model, "
            f"{phases.post_ms:.4f} ms decode (medians); outputs of {result.checked} timed runs are right"
        )
    for one in result.throughput:
        told.append(f"batch {one.batch}: {one.per_second:.0f} {noun}/s, p50 {one.p50_ms:.4f} ms")
    if result.cold_start:
        cold = result.cold_start
        peak = f", at most {cold.peak_mib:.0f} MiB of memory" if cold.peak_mib else ""
        told.append(
            f"cold start to the first answer: median {cold.p50_ms:.0f} ms, at most {cold.slowest_ms:.0f} ms of "
            f"{len(cold.ms)}{peak}"
        )
    return told


def _taken(seen: Optional[Resources], noun: str) -> Sequence[str]:
    """Throughput without a pause, memory and energy, as far as they were measured."""
    if seen is None:
        return []
    rate, memory = seen.sustained, seen.peak_memory_mib
    told = [f"without a pause, batch {rate.batch}: {rate.per_second:.0f} {noun}/s"] if rate else []
    told += [f"memory: a process that runs it had at most {memory:.0f} MiB"] if memory is not None else []
    return [*told, seen.energy.describe()]


def _bounds(result: BenchResult) -> Sequence[str]:
    """Between what percentiles are that no budget is set for, and how the measurement went where it went badly."""
    judged = {one.metric for one in result.judged}
    free = [one for one in result.latency.percentiles if f"latency_p{one.percentile}_ms" not in judged]
    told = [f"p{one.percentile} {_range_ms(one)}" for one in free]
    if result.state and result.state.describe():
        told.append(f"while measured, {result.state.describe()}")
    if not result.steady:
        told.append(f"the first {result.warmup_rounds} rounds, not counted, did not become steady")
    return [f"at {100 * CONFIDENCE:g} % confidence each: {'; '.join(told)}"] * bool(told)


def _range_ms(one: Percentile) -> str:
    high = "an unknown limit" if one.upper_ms is None else f"{one.upper_ms:.4f} ms"
    return f"{one.lower_ms or 0.0:.4f} to {high}" + " (3 times the slowest: bursts)" * one.by_slowest
