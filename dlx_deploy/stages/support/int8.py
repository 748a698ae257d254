"""The INT8 graph of a build: written, held against its budget, and what ``qat`` learned in its place."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.config import Quantize
from dlx_deploy.graph.quantization.trials import Trials, read_trials
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.runtime.filenames import MODEL
from dlx_deploy.stages.support.missed import PTQ, read_trained
from dlx_deploy.stages.support.requested import (
    Half,
    Precision,
    QuantizeParams,
    asks_for_int8,
    calibration_samples,
    dynamic_or_static,
    request_of,
)
from dlx_deploy.stages.support.restoring import MOST_SAMPLES, Looked, keep_within_budget
from dlx_deploy.stages.support.validating import Validation

if TYPE_CHECKING:
    from dlx_deploy.graph.quantization.quantize import QuantizationReport

__all__ = ["learned_int8", "within_budget", "write_graph", "write_int8"]

_log = logging.getLogger(__name__)


def write_int8(job: Job[Quantize], out: Path, elsewhere: Half) -> QuantizationReport | None:
    """The report of an INT8 graph written to ``out``; ``None`` where none can be INT8 and nobody asked for it."""
    from dlx_deploy.graph.quantization.quantize import NothingToQuantize

    asked = job.params.precision == "int8" or job.params.exclude
    for dynamic in dynamic_or_static(job):
        try:
            return write_graph(job, out, "int8", elsewhere, dynamic)
        except NothingToQuantize as e:
            if job.params.activations != "auto" or (asked and not dynamic):
                raise
            _log.warning("%s activations: %s", "dynamic" if dynamic else "static", e)
    return None


def write_graph(
    job: Job[Quantize], out: Path, precision: Precision, elsewhere: Half, dynamic: bool
) -> QuantizationReport:
    """The report of the graph written to ``out``."""
    from dlx_deploy.graph.quantization.quantize import quantize_model

    samples = calibration_samples(job)
    job.progress(0, 0, f"{precision}, {elsewhere} elsewhere; {len(samples)} calibration inputs")
    request = request_of(job, precision, elsewhere, dynamic)
    return quantize_model(job.inputs["onnx"], out, samples, request, job.progress)


def within_budget(job: Job[QuantizeParams], report: QuantizationReport | None, elsewhere: Half, asked: bool) -> Looked:
    """The INT8 graph that ``report`` describes, held against ``quantize.max_drop`` where there is one.

    ``asked``: INT8 was asked for by name.
    """
    from dlx_deploy.graph.quantization.mixed import Planned
    from dlx_deploy.graph.quantization.rounding import given_back
    from dlx_deploy.graph.quantization.scheme import CPU_DYNAMIC
    from dlx_deploy.nn.data.dataset import open_data

    if report is None:
        return Looked(None, Trials(note="no layer can be INT8"))
    if not isinstance(job.params.max_drop, float):
        return Looked(report, Trials(note="quantize.max_drop is 'off': INT8 was not held against a budget"))
    if not open_data(job.inputs["data"]).splits.get("validation"):
        return Looked(report, Trials(note="there are no validation samples to hold INT8 against a budget on"))
    if job.params.missed == "train":
        bench = Validation(job, job.params.max_drop, job.params.confidence, MOST_SAMPLES)
        trial = bench.trial("int8", job.out / MODEL, (), report.layers)
        return Looked(report, bench.trace((trial,), "" if trial.verdict == "met" else "it is left to qat"))
    request = request_of(job, "int8", elsewhere, dynamic=report.plan.scheme == CPU_DYNAMIC.name)
    request = replace(request, rounding=given_back(report.rounded), again=True)
    planned = Planned(job.inputs["onnx"], request, report.plan, calibration_samples(job))
    return keep_within_budget(job, planned, report, job.params.confidence, asked)


def learned_int8(job: Job[QuantizeParams], elsewhere: Half) -> Looked | None:
    """What ``qat`` learned as INT8, with layers restored where it still misses the budget.

    ``None``: nothing was learned, or it misses the budget and does no better than what was not trained.
    """
    given = job.inputs
    if "learned-record" not in given or not read_trained(given["learned-record"]).kept:
        return None
    assert isinstance(job.params.max_drop, float)
    before = read_trials(given[f"{PTQ}trials.json"])
    inputs = {**given, "onnx": given["learned-model"], "plan": given["learned-plan"], "float": given["onnx"]}
    params = msgspec.structs.replace(job.params, activations="static", effort="fast")
    learned = replace(job, inputs=inputs, params=params, checkpoints=job.checkpoints / "learned")
    report = write_graph(learned, job.out / MODEL, "int8", elsewhere, dynamic=False)
    bench = Validation(learned, job.params.max_drop, job.params.confidence, MOST_SAMPLES)
    first = bench.trial("int8", job.out / MODEL, (), report.layers)
    if first.verdict == "missed" and first.score <= before.trials[0].score:
        return None
    looked = within_budget(learned, report, elsewhere, asks_for_int8(job))
    return replace(looked, trials=looked.trials.after(before))
