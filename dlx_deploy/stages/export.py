"""export: the network as ONNX (uint8 NHWC in, logits out), checked against torch on real images."""

from __future__ import annotations

import logging

from dlx_deploy.config import Export
from dlx_deploy.pipeline.stage import Job, Metrics, Stage
from dlx_deploy.stages.training import TORCH_TOOLS, use_threads

__all__ = ["STAGE"]

_log = logging.getLogger(__name__)


def run(job: Job) -> Metrics:
    """Write ``model.onnx``.

    Raises:
        StageFailed: an operator cannot be expressed at the opset, or ONNX Runtime and torch disagree.
    """
    from dlx_deploy.nn.artifact import load_model
    from dlx_deploy.nn.data.artifact import open_data
    from dlx_deploy.nn.export import ExportSpec, check_parity, export_onnx
    from dlx_deploy.nn.graph import model_summary

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    model, _ = load_model(job.inputs["model"])
    spec = ExportSpec(
        height=data.height,
        width=data.width,
        channels=data.channels,
        mean=tuple(data.mean),
        std=tuple(data.std),
        opset=job.params.opset or job.target.opset,
        batch=job.params.batch,
    )
    out = job.out / "model.onnx"
    job.progress(0, 2, f"opset {spec.opset}")
    export_onnx(model, out, spec)
    job.progress(1, 2, "parity with torch")
    images, _ = data.split("validation")
    parity = check_parity(out, model, spec, images[: job.params.parity_images], job.params.parity_tolerance)
    if parity.vacuous:
        _log.warning("parity of %s says nothing: torch gives the same logits for every image", job.inputs["model"])
    summary = model_summary(out)
    return {
        "parity_max_abs_diff": parity.max_abs_diff,
        "parity_relative": parity.relative,
        "macs": float(summary.macs),
        "parameters": float(summary.parameters),
        "size_bytes": float(summary.size_bytes),
    }


STAGE = Stage(
    name="export",
    version=1,
    params=Export,
    inputs=("model", "data"),
    outputs=("model.onnx",),
    run=run,
    uses=("opset",),
    tools=(*TORCH_TOOLS, "onnx", "onnxscript"),
    modules=("dlx_deploy.stages.export", "dlx_deploy.nn.export"),
)
