"""compile: what the target loads.

For a CPU that is this machine, INT8 and FP32 are timed in turn and INT8 is shipped only if it is shown to be faster;
for another CPU the roofline estimate decides, and is named as what it is. Where ``quantize`` restored layers, INT8 is
the fastest of the graphs that keep to its budget (``support.fastest``). For a TensorRT target the ONNX travels with
the recipe that the builder on the device follows; an engine goes along where it can be built here, and otherwise
TensorRT-RTX, where it is installed, compiles the graph as a check.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.config import Config
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Stage, Step
from dlx_deploy.runtime.engine.settings import BuildSettings
from dlx_deploy.stages.quantize import QUANTIZED, TRIED
from dlx_deploy.stages.support.engine import CompileParams, build_settings, builder_for, compile_engine
from dlx_deploy.stages.support.fastest import GIVEN, INT8, TIMED, Graphs, read_timed, timed_notes
from dlx_deploy.stages.support.hazards import hazard_notes, refuse_hazards, write_operators
from dlx_deploy.stages.support.layer_precisions import LayerPrecisions, read_precisions
from dlx_deploy.targets import Profile
from dlx_deploy.targets.kernels import kernel_table

if TYPE_CHECKING:
    from dlx_deploy.devices.device import Device

__all__ = ["STAGE"]

SENSITIVITY = "sensitivity"
_RECIPE_SCHEMA, _TIMINGS_SCHEMA = 2, 1
"""Of ``recipe.json``, which is in a package, and of ``timings.json``."""


@dataclass(frozen=True)
class _Choice:
    """What is shipped and why. ``graph``: of the INT8 graphs the chosen one; ``measured``: milliseconds, by graph."""

    precision: str
    reason: str
    metrics: Metrics = field(default_factory=dict)
    graph: str = GIVEN
    measured: Mapping[str, float] = field(default_factory=dict)


def run(job: Job[CompileParams]) -> Metrics:
    """Write ``model.onnx``, ``recipe.json`` (no timings: it is shipped), ``timings.json``, ``engine/``, and in
    ``operators.json`` what the table of hazards asks of the graph; of the INT8 graph that was chosen
    ``quantized.onnx``, ``layers.json`` and ``sensitivity.json``, and in ``trials.json`` what it was chosen from.
    """
    asked, graphs = read_precisions(job.inputs["layers"]), Graphs.of(job)
    choice = _choose(job, asked, graphs)
    graphs.keep(job, asked, choice.graph, choice.measured)
    asked = read_precisions(job.out / "layers.json")
    precision = choice.precision
    shutil.copyfile(job.inputs["onnx"] if precision == "fp32" else job.out / INT8, job.out / "model.onnx")
    write_operators(job.out)
    settings = build_settings(job, asked)
    (job.out / "recipe.json").write_bytes(canonical_json(_recipe(job, asked, settings, precision, choice.reason)))
    engine, engine_metrics = compile_engine(job, settings)
    metrics = {**choice.metrics, **engine_metrics}
    (job.out / "timings.json").write_bytes(canonical_json({"schema": _TIMINGS_SCHEMA, **metrics}))
    return {**metrics, "int8": float(precision == "int8"), "engine_shipped": float(engine == "shipped")}


def _choose(job: Job[CompileParams], asked: LayerPrecisions, graphs: Graphs) -> _Choice:
    if asked.precision == "fp32":
        return _Choice("fp32", "the quantize stage kept FP32")
    if job.target.kind != "cpu":
        reason = f"the target runs {asked.precision.upper()}; its speed is measured on the board"
        return _Choice(asked.precision, reason, graph=graphs.fastest_estimated(job))
    if job.params.precision == asked.precision:
        return _Choice(asked.precision, f"the configuration asks for {asked.precision.upper()}")
    return _measure(job, graphs, job.device) if job.device else _estimate(job, graphs)


def _measure(job: Job[CompileParams], graphs: Graphs, device: Device) -> _Choice:
    """INT8 where it is shown to be fast enough; where it is shown not to be, or that is undecided, FP32.

    The reason has no figure: it is shipped, and no timing is the same twice.
    """
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.runtime.statistics.timings import paired_speedup
    from dlx_deploy.runtime.timing.latency import CONFIDENCE
    from dlx_deploy.runtime.timing.sampling import BUILD_PACE, Sampling

    data = open_data(job.inputs["data"])
    samples = data.samples("validation")
    models, least = {"fp32": job.inputs["onnx"], **graphs.models}, job.params.min_speedup
    sampling = Sampling(job.params.rounds, pace=BUILD_PACE)
    latency = device.latencies(models, samples[:1], sampling, job.params.threads, job.progress).latencies
    best = graphs.fastest_measured(latency, least)
    speedup = paired_speedup(latency["fp32"].block_p50_ms, latency[best].block_p50_ms, CONFIDENCE)
    bounds = {"int8_speedup_lower": speedup.lower, "int8_speedup_upper": speedup.upper}
    metrics = {
        "fp32_latency_p50_ms": latency["fp32"].p50_ms,
        "int8_latency_p50_ms": latency[best].p50_ms,
        "int8_speedup": speedup.ratio,
        **{name: bound for name, bound in bounds.items() if bound is not None},
    }
    where = "this machine" if device.is_here else "the board"
    claim = f"{least:g} times as fast as FP32 on {where} (paired timings, {100 * CONFIDENCE:g} % confidence)"
    measured = {name: latency[name].p50_ms for name in graphs.models}
    if speedup.lower is not None and speedup.lower >= least:
        return _Choice("int8", f"INT8 is at least {claim}", metrics, best, measured)
    if speedup.upper is not None and speedup.upper < least:
        return _Choice("fp32", f"INT8 is not {claim}{_why_slower(job, graphs.models[best])}", metrics, best, measured)
    undecided = f"whether INT8 is {claim} is undecided, and then FP32 stays"
    reason = f"{undecided}: raise compile.rounds to decide, or set quantize.precision"
    return _Choice("fp32", reason, metrics, best, measured)


def _estimate(job: Job[CompileParams], graphs: Graphs) -> _Choice:
    """The faster one on another CPU, by the estimate that ``verify`` shows and what islands of floating point cost."""
    from dlx_deploy.graph.analysis.cost import layer_costs
    from dlx_deploy.graph.analysis.islands import island_costs
    from dlx_deploy.targets.roofline import estimate

    best = graphs.fastest_estimated(job)
    quantized = graphs.models[best]
    fp32 = estimate(layer_costs(job.inputs["onnx"]), job.target).latency_ms
    int8 = estimate([*layer_costs(quantized), *island_costs(quantized)], job.target).latency_ms
    precision = "int8" if fp32 / int8 >= job.params.min_speedup else "fp32"
    reason = (
        f"this machine is not the target: the roofline estimate, not a measurement, is {int8:.3g} ms for INT8 and "
        f"{fp32:.3g} ms for FP32 there; a build on that machine would decide by timing them"
    )
    if precision == "fp32":
        reason += _why_slower(job, quantized)
    return _Choice(precision, reason, {"fp32_estimate_ms": fp32, "int8_estimate_ms": int8}, best)


def _why_slower(job: Job[CompileParams], quantized: Path) -> str:
    """What INT8 loses by, where it is known, and what to set."""
    from dlx_deploy.graph.analysis.islands import island_words

    words = island_words(quantized)
    if not words:
        return ""
    remedy = "set quantize.precision = 'fp32' to leave INT8 out from the start"
    if not job.target.quantization.kernels:
        known = ", ".join(kernel_table().cpus)
        remedy = f"set quantization.kernels in the target's profile if the CPU is one of {known}, or {remedy}"
    return f"; between its layers {words} are computed in floating point; {remedy}"


def _recipe(
    job: Job[CompileParams], asked: LayerPrecisions, settings: BuildSettings | None, precision: str, reason: str
) -> dict[str, object]:
    """What the package's runtime needs to know; deterministic."""
    recipe: dict[str, object] = {
        "schema": _RECIPE_SCHEMA,
        "kind": job.target.kind,
        "precision": precision,
        "elsewhere": asked.elsewhere if precision != "fp32" else "fp32",
        "reason": reason,
        "backends": list(job.target.backend_order),
        "engine": settings.to_dict() if settings else None,
    }
    return recipe if job.params.batch == "dynamic" else {**recipe, "fixed_batch": job.params.batch}


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step, which chooses between the last candidate, ``quantized``, and what that was made from, ``onnx``.

    In the place of the last candidate comes the graph that was chosen of those that ``quantize`` tried.
    """
    params = CompileParams(
        **msgspec.structs.asdict(config.compile),
        precision=config.quantize.precision,
        threads=config.verify.threads,
        batch=config.export.batch,
        builder=builder_for(config, profile),
    )
    *_, source, quantized = upstream.candidates.values()
    *_, last = upstream.candidates
    own = {name: upstream.output(name) for name in ("layers", "data")}
    if last == QUANTIZED:
        own |= {name: upstream.outputs[name] for name in (TRIED, SENSITIVITY) if name in upstream.outputs}
    inputs = {"onnx": source, "quantized": quantized, **own}
    step = Step(
        name="compile",
        stage=STAGE,
        params=params,
        inputs=inputs,
        seed=config.seed,
        gates=partial(judge, profile),
        notes=partial(notes, config, profile),
    )
    offered = {"shipped": "model.onnx", "recipe": "recipe.json", "engine": "engine"}
    again: dict[str, Output] = {}
    if own.keys() >= {TRIED, SENSITIVITY}:
        offered |= {"layers": "layers.json", SENSITIVITY: "sensitivity.json"}
        again = {last: Output("compile", INT8)}
    outputs = {role: Output("compile", name) for role, name in offered.items()}
    return [Bound(step, Offers(outputs, candidates=again, instead=("layers", SENSITIVITY, *again)))]


def judge(profile: Profile, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[GateResult]:
    """No gate, but no way on with a graph that the target's own engine would compute wrong.

    Raises:
        StageFailed: names the hazard and what to do.
    """
    refuse_hazards(profile, outputs)
    return []


def notes(config: Config, profile: Profile, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """What the graph would meet on the target, and where the timings of INT8 and FP32 decided nothing."""
    timed = timed_notes(read_timed(outputs[TIMED]))
    refused = _refused(config, outputs, metrics)
    return [*hazard_notes(profile, outputs), *timed, *_undecided(config, metrics), *refused]


def _refused(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """Why FP32 is shipped where INT8 was timed, or estimated, to be slower."""
    measured = metrics.get("int8_speedup_upper", math.inf) < config.compile.min_speedup
    if not measured and ("int8_estimate_ms" not in metrics or metrics["int8"]):
        return []
    return [f"FP32 is shipped: {msgspec.json.decode(outputs['recipe.json'].read_bytes())['reason']}"]


def _undecided(config: Config, metrics: Metrics) -> Sequence[str]:
    least = config.compile.min_speedup
    low, high = metrics.get("int8_speedup_lower", 0.0), metrics.get("int8_speedup_upper", math.inf)
    if "int8_speedup" not in metrics or low >= least or high < least:
        return []
    return [
        f"INT8 is {low:.3g} to {high:.3g} times as fast as FP32 here, and compile.min_speedup is {least:g}: undecided, "
        "so FP32 stays; raise compile.rounds, or set quantize.precision to int8 or fp32"
    ]


STAGE = Stage(
    name="compile",
    version=6,
    params=CompileParams,
    inputs=("onnx", "quantized", "layers", "data", TRIED, SENSITIVITY),
    outputs=(
        "engine",
        "layers.json",
        "model.onnx",
        "operators.json",
        INT8,
        "recipe.json",
        "sensitivity.json",
        "timings.json",
        TIMED,
    ),
    run=run,
    bind=bind,
    uses=(
        "kind",
        "arch",
        "quantization",
        "backends",
        "device_tree_model",
        "workspace_mib",
        "compute_capability",
        "engine_capabilities",
        "sparsity_2_4",
        "name",
        "title",
        "precisions",
        "roofline",
        "power_mode",
    ),
    tools=("onnx", "onnxruntime"),
    measures_host=True,
    times_host=True,
)
