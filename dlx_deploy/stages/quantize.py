"""quantize: static INT8 with explicit Q/DQ, or the same ONNX again where the target or the configuration wants FP32."""

from __future__ import annotations

import shutil

from dlx_deploy.config import Quantize
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job, Metrics, Stage

__all__ = ["STAGE"]


def run(job: Job) -> Metrics:
    """Write ``model.onnx`` and ``layers.json`` (node → precision)."""
    from dlx_deploy.nn.data.artifact import open_data
    from dlx_deploy.nn.quantization import QuantizationPlan, quantize_static

    source, out = job.inputs["onnx"], job.out / "model.onnx"
    layers: dict[str, str] = {}
    if _wants_int8(job):
        images, _ = open_data(job.inputs["data"]).split("calibration")
        style = job.target.quantization
        plan = QuantizationPlan(
            style=style.style,
            reduce_range=style.reduce_range,
            method=job.params.calibration,
            exclude=job.params.exclude,
        )
        job.progress(0, 1, f"{len(images)} calibration images")
        layers = dict(quantize_static(source, out, images, plan).layers)
    else:
        shutil.copyfile(source, out)
    (job.out / "layers.json").write_bytes(canonical_json({"schema": 1, "layers": layers}))
    int8 = sum(precision == "int8" for precision in layers.values())
    return {"int8_layers": float(int8), "size_bytes": float(out.stat().st_size)}


def _wants_int8(job: Job) -> bool:
    runs_int8 = "int8" in job.target.precisions
    if job.params.precision == "int8" and not runs_int8:
        allowed = ", ".join(job.target.precisions)
        raise ConfigError(
            f"quantize.precision is 'int8', which this target does not run; it runs {allowed}; use 'auto'"
        )
    return runs_int8 and job.params.precision != "fp32"


STAGE = Stage(
    name="quantize",
    version=1,
    params=Quantize,
    inputs=("onnx", "data"),
    outputs=("layers.json", "model.onnx"),
    run=run,
    uses=("precisions", "quantization"),
    tools=("numpy", "onnx", "onnxruntime"),
    modules=("dlx_deploy.stages.quantize", "dlx_deploy.nn.quantization"),
)
