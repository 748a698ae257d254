"""export: the network as ONNX (images or tokens in, logits out), checked against torch on real inputs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from dlx_deploy.config import Export
from dlx_deploy.pipeline.stage import Job, Metrics, Stage
from dlx_deploy.stages.support.checks import check_export
from dlx_deploy.stages.support.training import TORCH_TOOLS, use_threads

if TYPE_CHECKING:
    from dlx_deploy.nn.data.dataset import DataArtifact
    from dlx_deploy.nn.export.spec import Spec

__all__ = ["STAGE"]

NEIGHBOURS = 8
"""Parity looks at so many rows at least: whether one's answer depends on others shows with others alone."""

_log = logging.getLogger(__name__)


def run(job: Job[Export]) -> Metrics:
    """Write ``model.onnx``.

    Raises:
        StageFailed: an operator cannot be expressed at the opset, or ONNX Runtime and torch disagree.
    """
    from dlx_deploy.graph.cost import model_summary
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.nn.export.network import check_parity, export_onnx
    from dlx_deploy.nn.weights.network import load_model

    data = open_data(job.inputs["data"])
    use_threads(job, data)
    model, _ = load_model(job.inputs["model"])
    spec = _spec(job, data)
    out = job.out / "model.onnx"
    job.progress(0, 2, f"opset {spec.opset}")
    export_onnx(model, out, spec)
    job.progress(1, 2, "parity with torch")
    inputs, _ = data.split("validation")
    parity = check_parity(
        out, model, spec, inputs[: max(job.params.parity_images, NEIGHBOURS)], job.params.parity_tolerance
    )
    if parity.vacuous:
        _log.warning("parity of %s says nothing: torch gives the same logits for every input", job.inputs["model"])
    summary = model_summary(out)
    return {
        "parity_max_abs_diff": parity.max_abs_diff,
        "parity_relative": parity.relative,
        "macs": float(summary.macs),
        "parameters": float(summary.parameters),
        "size_bytes": float(summary.size_bytes),
    }


def _spec(job: Job[Export], data: DataArtifact) -> Spec:
    from dlx_deploy.nn.export.network import ExportSpec, TextSpec

    opset, batch = job.params.opset or job.target.opset, job.params.batch
    if data.is_text:
        length: Literal["fixed", "dynamic"] = "fixed" if job.params.length == "fixed" else "dynamic"
        return TextSpec(max_length=data.max_length, pad_id=data.pad_id, opset=opset, batch=batch, length=length)
    return ExportSpec(
        height=data.height,
        width=data.width,
        channels=data.channels,
        mean=tuple(data.mean),
        std=tuple(data.std),
        opset=opset,
        batch=batch,
    )


STAGE = Stage(
    name="export",
    version=3,
    params=Export,
    inputs=("model", "data"),
    outputs=("model.onnx",),
    run=run,
    check=check_export,
    uses=("opset",),
    tools=(*TORCH_TOOLS, "onnx", "onnxruntime", "onnxscript"),
)
