"""compile: what the target loads.

For a CPU that is this machine, INT8 and FP32 are timed in turn and INT8 is shipped only if it is faster. For a TensorRT
target the ONNX travels with the recipe that the builder on the device follows; an engine goes along where it can be
built here, and otherwise TensorRT-RTX, where it is installed, compiles the graph as a check.
"""

from __future__ import annotations

import shutil
from typing import Any, Literal

from dlx_deploy.config import Compile, Quantize
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job, Metrics, Stage
from dlx_deploy.runtime.engine.settings import BuildSettings
from dlx_deploy.stages.engine import build_settings, compile_engine
from dlx_deploy.stages.quantize import PrecisionPlan, read_plan

__all__ = ["STAGE", "CompileParams"]


class CompileParams(Compile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section's keys, and those of others that the choice depends on."""

    precision: str = Quantize().precision
    threads: int = 1
    batch: Literal["dynamic"] | int = "dynamic"
    builder: str = ""


def run(job: Job[CompileParams]) -> Metrics:
    """Write ``model.onnx``, ``recipe.json`` (no timings: it is shipped), ``timings.json`` and ``engine/``."""
    plan = read_plan(job.inputs["layers"])
    precision, reason, metrics = _choose(job, plan)
    chosen = job.inputs["onnx" if precision == "fp32" else "quantized"]
    shutil.copyfile(chosen, job.out / "model.onnx")
    settings = build_settings(job, plan)
    (job.out / "recipe.json").write_bytes(canonical_json(_recipe(job, plan, settings, precision, reason)))
    engine, found = compile_engine(job, settings)
    metrics = {**metrics, **found}
    (job.out / "timings.json").write_bytes(canonical_json({"schema": 1, **metrics}))
    return {**metrics, "int8": float(precision == "int8"), "engine_shipped": float(engine == "shipped")}


def _choose(job: Job[CompileParams], plan: PrecisionPlan) -> tuple[str, str, Metrics]:
    from dlx_deploy.targets import is_this_host

    if plan.precision == "fp32":
        return "fp32", "the quantize stage kept FP32", {}
    if job.target.kind != "cpu":
        return plan.precision, f"the target runs {plan.precision.upper()}; its speed is measured on the board", {}
    if job.params.precision == "int8":
        return "int8", "the configuration asks for INT8", {}
    if not is_this_host(job.target):
        return "int8", "this machine is not the target, so INT8's speed is not measured", {}
    speedup, metrics = _measure(job)
    if speedup >= job.params.min_speedup:
        return "int8", f"INT8 is at least {job.params.min_speedup:g} times as fast as FP32 on this machine", metrics
    return "fp32", f"INT8 is not {job.params.min_speedup:g} times as fast as FP32 on this machine", metrics


def _measure(job: Job[CompileParams]) -> tuple[float, Metrics]:
    from dlx_deploy.nn.data.artifact import open_data
    from dlx_deploy.nn.latency import interleaved_latency

    data = open_data(job.inputs["data"])
    inputs, _ = data.split("validation")
    models = {"fp32": job.inputs["onnx"], "int8": job.inputs["quantized"]}
    job.progress(0, 1, "timing INT8 against FP32")
    latency = interleaved_latency(models, inputs[:1], job.params.rounds, job.params.threads, data.padding)
    speedup = latency["fp32"].p50_ms / latency["int8"].p50_ms
    return speedup, {
        "fp32_latency_p50_ms": latency["fp32"].p50_ms,
        "int8_latency_p50_ms": latency["int8"].p50_ms,
        "int8_speedup": speedup,
    }


def _recipe(
    job: Job[CompileParams], plan: PrecisionPlan, settings: BuildSettings | None, precision: str, reason: str
) -> dict[str, Any]:
    """What the package's runtime needs to know; deterministic."""
    recipe: dict[str, Any] = {
        "schema": 2,
        "kind": job.target.kind,
        "precision": precision,
        "elsewhere": plan.elsewhere if precision != "fp32" else "fp32",
        "reason": reason,
        "backends": list(job.target.backend_order),
        "engine": settings.to_dict() if settings else None,
    }
    return recipe if job.params.batch == "dynamic" else {**recipe, "fixed_batch": job.params.batch}


STAGE = Stage(
    name="compile",
    version=2,
    params=CompileParams,
    inputs=("onnx", "quantized", "layers", "data"),
    outputs=("engine", "model.onnx", "recipe.json", "timings.json"),
    run=run,
    uses=(
        "kind",
        "arch",
        "backends",
        "device_tree_model",
        "workspace_mib",
        "compute_capability",
        "engine_capabilities",
        "sparsity_2_4",
    ),
    tools=("onnxruntime",),
    measures_host=True,
)
