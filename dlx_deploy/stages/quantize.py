"""quantize: the precision of every layer written into the graph: explicit Q/DQ for INT8, FP16 where an engine runs it.

What it rests on is written beside it: ``ranges.json``, what activations do on the calibration inputs, and
``plan.json``, what follows for each tensor and layer. An edited plan can be given back (docs/quantization.md).
``decisions.json`` says what was tried to make INT8 more accurate (``quantize.effort``), and what of it was kept.
``trials.json`` says how INT8 does on the validation split, and which layers went back to floating point until it kept
to its budget (``quantize.max_drop``); ``sensitivity.json`` what each layer costs, where that had to be known. The
graphs that keep to it lie in ``tried``: ``compile`` takes the fastest.

Where ``qat`` may train there is a step before it and one behind it. With ``qat.enabled = "auto"`` the first tells
whether INT8 misses its budget, and the second writes the better of what the first gave and what was learned, and
restores layers of that where it misses the budget still.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.config import Config, Gate, Quantize
from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.quantization.trials import Trials, read_sensitivity, read_trials, written
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Setup, Source, Stage, Step
from dlx_deploy.runtime.filenames import MODEL
from dlx_deploy.stages.support.calibrated import one_answer, one_answer_notes
from dlx_deploy.stages.support.costly import trial_notes
from dlx_deploy.stages.support.given import check_plan
from dlx_deploy.stages.support.int8 import learned_int8, within_budget, write_graph, write_int8
from dlx_deploy.stages.support.layer_precisions import LayerPrecisions, read_precisions
from dlx_deploy.stages.support.missed import PTQ, copy_untrained, trains_int8
from dlx_deploy.stages.support.precisions import NEEDS, check_below
from dlx_deploy.stages.support.rehearsal import rehearse_quantize
from dlx_deploy.stages.support.requested import (
    QUANTIZED_TO,
    QuantizeParams,
    asks_for_int8,
    fewer_bits,
    given_plan,
    half_in_graph,
    precisions_of,
    refuse_dynamic,
)
from dlx_deploy.stages.support.restoring import Looked, keep_graphs
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import task_for
from dlx_deploy.tasks.judging import METRIC, asked_metric, metric_file

if TYPE_CHECKING:
    from dlx_deploy.graph.quantization.quantize import QuantizationReport

__all__ = [
    "PTQ_LAYERS",
    "PTQ_PLAN",
    "PTQ_TRIALS",
    "QAT_MODEL",
    "QAT_PLAN",
    "QAT_RECORD",
    "QUANTIZED",
    "STAGE",
    "TRIED",
]

PTQ_PLAN, PTQ_LAYERS, PTQ_TRIALS = "plan without training", "layers without training", "trials without training"
"""Under which names is offered what the network is quantized with before ``qat`` trains it …"""
QAT_MODEL, QAT_PLAN, QAT_RECORD = "trained float32 graph", "trained plan", "what became of training"
"""… and what ``qat`` offers then."""

_FIRST = "quantize-ptq"
"""The step before ``qat``."""
QUANTIZED = "quantized"
"""The candidate's name."""
TRIED = "tried"
"""The folder of graphs among which the target's speed decides (``stages.support.fastest``)."""
_OUTPUTS = (
    *("decisions.json", "layers.json", MODEL, "plan.json", "ranges.json", "sensitivity.json", "trials.json", TRIED),
)


def run(job: Job[QuantizeParams]) -> Metrics:
    """Write ``model.onnx``, ``layers.json``, ``ranges.json``, ``plan.json``, ``decisions.json``, ``trials.json`` and
    ``sensitivity.json``.

    Raises:
        ConfigError: the target does not run what was asked for, or the plan that was given does not fit.
        StageFailed: INT8 was asked for by name, and no layer of the graph can be.
    """
    from dlx_deploy.graph.analysis.sparsity import check_kept_sparse
    from dlx_deploy.graph.model import load
    from dlx_deploy.graph.quantization.kit.decisions import decisions_bytes
    from dlx_deploy.graph.quantization.plan import plan_bytes
    from dlx_deploy.graph.quantization.quantize import unquantized
    from dlx_deploy.graph.quantization.ranges import ranges_bytes

    source, out = job.inputs["onnx"], job.out / MODEL
    if copy_untrained(job):
        return _counted(read_precisions(job.out / "layers.json"), out)
    precision, elsewhere = precisions_of(job.params, job.target)
    looked = Looked(None, Trials(note="nothing is in INT8"))
    if precision == "int8":
        looked = learned_int8(job, elsewhere) or within_budget(
            job, write_int8(job, out, elsewhere), elsewhere, asks_for_int8(job)
        )
        precision = "int8" if looked.report is not None else elsewhere
    report = looked.report
    if precision in ("fp16", *NEEDS):
        report = write_graph(job, out, precision, elsewhere, dynamic=False)
    if report is None:
        report = unquantized(source, given_plan(job))
        shutil.copyfile(source, out)
    else:
        check_kept_sparse(load(source), load(out))
    precisions = LayerPrecisions(
        precision=precision,
        elsewhere=elsewhere,
        strongly_typed=half_in_graph(job, precision, elsewhere) or elsewhere == "fp32",
        layers=report.layers,
    )
    (job.out / "layers.json").write_bytes(canonical_json(precisions))
    (job.out / "ranges.json").write_bytes(ranges_bytes(report.ranges))
    (job.out / "plan.json").write_bytes(plan_bytes(report.plan))
    decisions = report.decisions
    if precision not in QUANTIZED_TO and job.params.effort != "fast":
        decisions = msgspec.structs.replace(decisions, effort=job.params.effort, note="nothing is INT8")
    (job.out / "decisions.json").write_bytes(decisions_bytes(decisions))
    (job.out / "trials.json").write_bytes(written(looked.trials))
    (job.out / "sensitivity.json").write_bytes(written(looked.sensitivity))
    keep_graphs(job.out / TRIED, looked)
    calibrated = one_answer(job) if report.ranges.tensors and "learned-record" not in job.inputs else {}
    return {**_counted(precisions, out), **_improvement(report), **calibrated}


def _counted(precisions: LayerPrecisions, out: Path) -> Metrics:
    kinds = list(precisions.layers.values())
    counted = ("int8", "fp16", "fp32", *(kind for kind in NEEDS if kind in {precisions.precision, *kinds}))
    counts = {f"{kind}_layers": float(kinds.count(kind)) for kind in counted}
    return {**counts, "size_bytes": float(out.stat().st_size)}


def _improvement(report: QuantizationReport) -> Metrics:
    """How near the answers to held-out calibration inputs came to the network's, and what that cost; nothing with
    ``effort = "fast"``."""
    steps = report.decisions.steps
    if not steps:
        return {}
    last = next((step.sqnr_db_after for step in reversed(steps) if step.kept), None)
    return {
        "held_out_sqnr_fast_db": steps[0].sqnr_db_before,
        "held_out_sqnr_db": steps[0].sqnr_db_before if last is None else last,
        "steps_kept": float(sum(step.kept for step in steps)),
        "effort_cpu_seconds": round(sum(report.seconds.values()), 3),
    }


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step, made from the last candidate, after which its graph is the last one.

    Where ``qat`` trains there is one before it too, for the plan that its scales begin with: all layers learn, so none
    is restored there.
    """
    params, when = _params(config, profile), trains_int8(config, profile)
    if when == "never":
        return [] if QUANTIZED in upstream.candidates else [_bound("quantize", params, config, upstream)]
    if QAT_PLAN not in upstream.outputs:
        return [_before_training(params, when, config, upstream)]
    record, model, plan = (upstream.output(name) for name in (QAT_RECORD, QAT_MODEL, QAT_PLAN))
    if when == "missed":
        bound = _bound("quantize", params, config, upstream)
        learned: dict[str, Source] = {"learned-record": record, "learned-model": model, "learned-plan": plan}
        learned |= {f"{PTQ}{name}": Output(_FIRST, name) for name in STAGE.outputs}
    else:
        params = msgspec.structs.replace(params, activations="static", effort="fast", plan="")
        bound = _bound("quantize", params, config, upstream)
        learned = {"onnx": model, "plan": plan, "float": bound.step.inputs["onnx"]}
    return [replace(bound, step=replace(bound.step, inputs={**bound.step.inputs, **learned}))]


def _before_training(params: QuantizeParams, when: str, config: Config, upstream: Offers) -> Bound:
    """The step before ``qat``: all that is tried where that may not be needed, else a plan to begin with."""
    if when == "missed":
        params = msgspec.structs.replace(params, missed="train")
    else:
        untried = {"max_drop": "off", "confidence": Gate().confidence, "metric": ""}
        params = msgspec.structs.replace(params, activations="static", effort="fast", **untried)
    step = _bound(_FIRST, params, config, upstream).step
    files = {PTQ_PLAN: "plan.json", PTQ_LAYERS: "layers.json", PTQ_TRIALS: "trials.json"}
    return Bound(step, Offers(outputs={offer: Output(_FIRST, file) for offer, file in files.items()}))


def _bound(name: str, params: QuantizeParams, config: Config, upstream: Offers) -> Bound:
    reference, *_ = upstream.candidates.values()
    *_, source = upstream.candidates.values()
    inputs: dict[str, Source] = {"onnx": source, "data": upstream.output("data")}
    if params.plan:
        inputs["plan"] = Path(params.plan)
        params = msgspec.structs.replace(params, plan="plan.json")  # its content is in the key, not its path
    if params.max_drop != "off" and reference != source:
        inputs["reference"] = reference
    if params.metric:
        inputs |= metric_file(config.gate)
    step = Step(name, STAGE, params, inputs, config.seed, notes=notes)
    files = {"layers": "layers.json", "sensitivity": "sensitivity.json", TRIED: TRIED}
    offers = Offers(
        outputs={offer: Output(name, file) for offer, file in files.items()},
        candidates={QUANTIZED: Output(name, MODEL)},
    )
    return Bound(step, offers)


def _params(config: Config, profile: Profile) -> QuantizeParams:
    """Without a budget where nothing would be held against it: it is then in no key."""
    section = config.quantize
    max_drop = config.gate.max_drop if section.max_drop == "gate" else section.max_drop
    confidence, metric = config.gate.confidence, asked_metric(task_for(config.data), config.gate)
    if "int8" not in profile.precisions or section.precision not in ("auto", "int8") or max_drop == "off":
        max_drop, confidence, metric = "off", Gate().confidence, ""
    given = msgspec.structs.asdict(section) | {"max_drop": max_drop, "confidence": confidence, "metric": metric}
    return QuantizeParams(**given)


def notes(outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """Where INT8 missed its budget on validation: by how much, what was restored, and which layers cost most; and where
    calibration inputs are of one class."""
    missed = trial_notes(read_trials(outputs["trials.json"]), read_sensitivity(outputs["sensitivity.json"]))
    return [*one_answer_notes(metrics), *missed]


def check(setup: Setup[Quantize]) -> None:
    """The ``[quantize]`` table against what the target runs."""
    params, batch = setup.params, setup.config.export.batch
    precision, _ = precisions_of(params, setup.target)
    refuse_dynamic(params, setup.target)
    if precision in NEEDS:
        check_below(setup, precision)
    if (fewer := fewer_bits(params)) and precision != "int8":
        raise ConfigError(
            f"quantize.{fewer} is {getattr(params, fewer)}, and quantize.precision {params.precision!r} writes no INT8 "
            "for this target; rule: it says how fine the integers of INT8 layers are; leave it out"
        )
    if params.activations == "dynamic" and precision == "int8" and batch not in ("dynamic", 1):
        raise ConfigError(
            f"export.batch is {batch}, and with dynamic activations an answer would depend on its neighbours in the "
            "batch; set export.batch to 'dynamic' or 1, or quantize.activations to 'static'"
        )
    for pattern in params.exclude:
        if not pattern.strip():
            raise ConfigError(f"quantize.exclude has {pattern!r}; rule: patterns of layer names, e.g. '*conv1*'")
    if "plan" in setup.inputs:
        check_plan(setup.inputs["plan"], setup, precision)


STAGE = Stage(
    name="quantize",
    version=9,
    params=QuantizeParams,
    inputs=(
        *("onnx", "data", "plan", "reference", "float", "learned-record", "learned-model", "learned-plan", METRIC),
        *(f"{PTQ}{name}" for name in _OUTPUTS),
    ),
    outputs=_OUTPUTS,
    run=run,
    check=check,
    bind=bind,
    rehearse=rehearse_quantize,
    uses=("kind", "backends", "judge", "precisions", "quantization"),
    tools=("numpy", "onnx", "onnxruntime"),
)
