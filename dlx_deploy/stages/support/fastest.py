"""Of the INT8 graphs that keep to their budget, the fastest on the target; and ``trials.json`` with every latency.

``quantize`` gives the one with the fewest restored layers. Another takes its place where it is shown to be faster:
by paired timings where the target can be timed, by the roofline estimate, named as what it is, where not.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.graph.quantization.trials import (
    Sensitivity,
    Trial,
    TriedGraphs,
    read_graphs,
    read_sensitivity,
    written,
)
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.runtime.words import line, percent
from dlx_deploy.stages.quantize import TRIED
from dlx_deploy.stages.support.engine import CompileParams
from dlx_deploy.stages.support.layer_precisions import LayerPrecisions
from dlx_deploy.stages.support.results import MEASURED
from dlx_deploy.targets.roofline import NOT_MEASURED, estimate

if TYPE_CHECKING:
    from dlx_deploy.runtime.timing.latency import Latency

__all__ = ["GIVEN", "INT8", "TIMED", "Graphs", "TimedTrial", "TimedTrials", "read_timed", "timed_notes"]

GIVEN = "int8"
"""What the graph is called that ``quantize`` gives."""
INT8, TIMED = "quantized.onnx", "trials.json"
NAMED = 4
"""Trials in a sentence; ``trials.json`` has all."""
_SCHEMA = 1


class TimedTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A trial of ``quantize`` and its latency on the target, which ``latency`` says how it was found.

    ``chosen``: it is the fastest that keeps to the budget, or was not shown to be slower than that.
    """

    trial: Trial
    latency_ms: float
    latency: str
    chosen: bool


class TimedTrials(msgspec.Struct, frozen=True, kw_only=True):
    """``trials.json`` of ``compile``; empty where no layer was restored."""

    schema: int = _SCHEMA
    where: str = ""
    trials: tuple[TimedTrial, ...] = ()


@dataclass(frozen=True)
class Graphs:
    """The INT8 graphs to choose from, by name; ``GIVEN`` is the first."""

    models: Mapping[str, Path]
    tried: TriedGraphs

    @classmethod
    def of(cls, job: Job[CompileParams]) -> Graphs:
        """Those of the job's inputs."""
        models = {GIVEN: job.inputs["quantized"]}
        if TRIED not in job.inputs:
            return cls(models, TriedGraphs())
        tried = read_graphs(job.inputs[TRIED])
        others = {f"{GIVEN}-{i}": graph.file for i, graph in enumerate(tried.graphs) if graph.file}
        return cls({**models, **{name: job.inputs[TRIED] / file for name, file in others.items()}}, tried)

    def fastest_measured(self, timed: Mapping[str, Latency], least: float) -> str:
        """The one that is shown to be ``least`` times as fast as that which it takes the place of."""
        from dlx_deploy.runtime.statistics.timings import paired_speedup
        from dlx_deploy.runtime.timing.latency import CONFIDENCE

        best, *others = self.models
        for name in others:
            speedup = paired_speedup(timed[best].block_p50_ms, timed[name].block_p50_ms, CONFIDENCE)
            if speedup.lower is not None and speedup.lower >= least:
                best = name
        return best

    def fastest_estimated(self, job: Job[CompileParams]) -> str:
        """The same by the roofline."""
        (best, *others), ms = self.models, self._estimates(job)
        for name in others:
            if ms[best] / ms[name] >= job.params.min_speedup:
                best = name
        return best

    def keep(self, job: Job[CompileParams], asked: LayerPrecisions, name: str, measured: Mapping[str, float]) -> None:
        """Write the graph ``name``, of which ``asked`` is what the given one has, what is known of its layers, and what
        each trial's latency is: ``measured``, by name, or estimated.
        """
        shutil.copyfile(self.models[name], job.out / INT8)
        at = self._position(name)
        costs = read_sensitivity(job.inputs["sensitivity"]) if "sensitivity" in job.inputs else Sensitivity()
        if self.tried.graphs and name != GIVEN:
            asked = msgspec.structs.replace(asked, layers=self.tried.graphs[at].layers)
            costs = costs.with_restored(self.tried.graphs[at].trial.restored)
        (job.out / "layers.json").write_bytes(canonical_json(asked))
        (job.out / "sensitivity.json").write_bytes(written(costs))
        rows, estimates = list[TimedTrial](), self._estimates(job)
        for i, graph in enumerate(self.tried.graphs):
            called = self._name(i)
            ms, how = (measured[called], MEASURED) if called in measured else (estimates[called], NOT_MEASURED)
            rows.append(TimedTrial(trial=graph.trial, latency_ms=ms, latency=how, chosen=i == at))
        where = job.device.name if measured and job.device else job.target.title
        (job.out / TIMED).write_bytes(canonical_json(TimedTrials(where=where if rows else "", trials=tuple(rows))))

    def _name(self, position: int) -> str:
        return GIVEN if position == self.tried.given else f"{GIVEN}-{position}"

    def _position(self, name: str) -> int:
        return self.tried.given if name == GIVEN else int(name.removeprefix(f"{GIVEN}-"))

    def _estimates(self, job: Job[CompileParams]) -> dict[str, float]:
        """Of every trial, in milliseconds."""
        graphs = enumerate(self.tried.graphs)
        return {self._name(i): estimate(graph.costs, job.target).latency_ms for i, graph in graphs}


def read_timed(path: Path) -> TimedTrials:
    """What ``trials.json`` says."""
    return msgspec.json.decode(path.read_bytes(), type=TimedTrials)


def timed_notes(timed: TimedTrials) -> Sequence[str]:
    """What the trials' latencies are, where there are some."""
    if not timed.trials:
        return []
    told = [_told(row) for row in timed.trials[-NAMED:]]
    more = f" ({TIMED} has all {len(timed.trials)})" if len(timed.trials) > NAMED else ""
    rule = "the fastest that keeps to quantize.max_drop"
    return [f"restored layers, {rule} on {line(timed.where)}: {'; '.join(told)}{more}"]


def _told(row: TimedTrial) -> str:
    trial = row.trial
    layers = f"{len(trial.restored)} restored" if trial.restored else "all in INT8"
    how = "" if row.latency == MEASURED else " by estimate"
    chosen = ", chosen" if row.chosen else ""
    return f"{layers} {row.latency_ms:.3g} ms{how}, {percent(trial.score)}, {trial.verdict}{chosen}"
