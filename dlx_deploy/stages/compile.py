"""compile: what the target loads.

For a CPU that is this machine, INT8 and FP32 are timed in turn and INT8 is shipped only if it is faster. For a TensorRT
target the engine is built where it runs, so the ONNX travels with the recipe that the builder follows.
"""

from __future__ import annotations

import shutil
from typing import Any

from dlx_deploy.config import Compile, Quantize
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job, Metrics, Stage

__all__ = ["STAGE", "CompileParams"]


class CompileParams(Compile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section's keys, and those of others that the choice depends on."""

    precision: str = Quantize().precision
    threads: int = 1
    batch: int | str = "dynamic"


def run(job: Job) -> Metrics:
    """Write ``model.onnx``, ``recipe.json`` (no timings: it is shipped) and ``timings.json``."""
    quantized = job.inputs["quantized"].read_bytes() != job.inputs["onnx"].read_bytes()
    precision, reason = "fp32", "the quantize stage kept FP32"
    metrics: Metrics = {}
    if quantized:
        precision, reason, metrics = _choose(job)
    chosen = job.inputs["quantized" if precision == "int8" else "onnx"]
    shutil.copyfile(chosen, job.out / "model.onnx")
    (job.out / "recipe.json").write_bytes(canonical_json(_recipe(job, precision, reason)))
    (job.out / "timings.json").write_bytes(canonical_json({"schema": 1, **metrics}))
    return {**metrics, "int8": float(precision == "int8")}


def _choose(job: Job) -> tuple[str, str, Metrics]:
    from dlx_deploy.targets import is_this_host

    if job.params.precision == "int8":
        return "int8", "the configuration asks for INT8", {}
    if job.target.kind != "cpu":
        return "int8", "the target runs INT8; its speed is measured on the board", {}
    if not is_this_host(job.target):
        return "int8", "this machine is not the target, so INT8's speed is not measured", {}
    speedup, metrics = _measure(job)
    if speedup >= job.params.min_speedup:
        return "int8", f"INT8 is at least {job.params.min_speedup:g} times as fast as FP32 on this machine", metrics
    return "fp32", f"INT8 is not {job.params.min_speedup:g} times as fast as FP32 on this machine", metrics


def _measure(job: Job) -> tuple[float, Metrics]:
    from dlx_deploy.nn.data.artifact import open_data
    from dlx_deploy.nn.latency import interleaved_latency

    images, _ = open_data(job.inputs["data"]).split("validation")
    models = {"fp32": job.inputs["onnx"], "int8": job.inputs["quantized"]}
    job.progress(0, 1, "timing INT8 against FP32")
    latency = interleaved_latency(models, images[:1], job.params.rounds, job.params.threads)
    speedup = latency["fp32"].p50_ms / latency["int8"].p50_ms
    return speedup, {
        "fp32_latency_p50_ms": latency["fp32"].p50_ms,
        "int8_latency_p50_ms": latency["int8"].p50_ms,
        "int8_speedup": speedup,
    }


def _recipe(job: Job, precision: str, reason: str) -> dict[str, Any]:
    """What a builder on the device needs to know; deterministic."""
    target = job.target
    batch = job.params.batch
    recipe: dict[str, Any] = {"schema": 1, "kind": target.kind, "precision": precision, "reason": reason}
    if batch != "dynamic":
        recipe["fixed_batch"] = batch
    if target.kind == "cpu":
        return {**recipe, "runtime": "onnxruntime"}
    sizes = {"min": 1, "opt": 1, "max": 16} if batch == "dynamic" else dict.fromkeys(("min", "opt", "max"), batch)
    return {
        **recipe,
        "runtime": "tensorrt",
        "strongly_typed": True,
        "batch": sizes,
        "workspace_mib": target.workspace_mib,
        "compute_capability": target.compute_capability,
        "tensorrt": target.software.tensorrt,
    }


STAGE = Stage(
    name="compile",
    version=1,
    params=CompileParams,
    inputs=("onnx", "quantized", "data"),
    outputs=("model.onnx", "recipe.json", "timings.json"),
    run=run,
    uses=("kind", "arch", "device_tree_model", "workspace_mib", "compute_capability", "software"),
    tools=("onnxruntime",),
    measures_host=True,
    modules=("dlx_deploy.stages.compile",),
)
