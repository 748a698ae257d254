"""A PyTorch classifier as ONNX: uint8 NHWC images or int32 tokens in, float32 logits out.

For images the graph starts with Cast (TensorRT accepts uint8 only as the input of a cast), Transpose, Mul and Add, and
goes on with the model; batch norm is folded into convolutions. Nodes carry the names of the modules they came from
(``layer1.0.conv2/Conv``), so that patterns in a configuration can name layers. The same weights give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import nn

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.evaluation import run_onnx
from dlx_deploy.graph.model import OUTPUT, load, to_bytes
from dlx_deploy.graph.passes.base import run_passes
from dlx_deploy.graph.passes.exported import exported_passes
from dlx_deploy.graph.passes.names import WRAPPED
from dlx_deploy.graph.rows import BLAMED, MOST, dependence, refuse_dependent_rows, unlike
from dlx_deploy.nn.export.bake import baked, copied
from dlx_deploy.nn.export.rows import blame, refused_alone
from dlx_deploy.nn.export.spec import ExportSpec, Spec, TextSpec

__all__ = ["ExportSpec", "ParityReport", "TextSpec", "check_parity", "export_onnx"]

EXPORTER_OPSET = 18
"""The exporter's own; it converts to newer ones, and ``lower`` to older ones."""
BATCH = 64
ROWS_SHARE = 0.1
"""Of the parity tolerance: what the size of a batch may change, since sums are then taken in another order."""
ROUNDING = 2e-5
"""What it changes in float32 at most, so that a strict parity does not refuse it."""
PADDING = ", and however long the longest of them is: mask the padding (tokens != pad_id) wherever tokens are mixed"
SIZE_LIMIT_BYTES = 2**31 - 2**20
"""A protobuf message ends at 2 GiB; the graph itself gets the last MiB."""


@dataclass(frozen=True)
class ParityReport:
    """How far ONNX Runtime is from torch; ``relative`` is ``max_abs_diff`` over the largest |logit| of torch.

    ``vacuous``: the logits do not depend on the image, so that agreement says nothing about the graph.
    """

    max_abs_diff: float
    relative: float
    top1_agreement: float
    images: int
    vacuous: bool


def export_onnx(model: nn.Module, path: Path, spec: Spec) -> None:
    """Write the model to ``path``; the model itself is left as it was, training mode included.

    Raises:
        ConfigError: the model cannot take such images, or its output is not [N, classes].
        StageFailed: it is over 2 GiB, torch cannot export it, or an operator does not exist at the opset.
    """
    _refuse_too_large(model)
    wrapped = spec.wrap(baked(model)).eval()
    example = spec.example()
    _refuse_other_outputs(wrapped, example, spec)
    graph = _exported(wrapped, example, spec)
    onnx.helper.set_model_props(graph, spec.metadata())
    path.write_bytes(to_bytes(run_passes(graph, exported_passes(spec.opset), path.name)))


def check_parity(path: Path, model: nn.Module, spec: Spec, inputs: NDArray[Any], tolerance: float) -> ParityReport:
    """How the file in ``path`` differs from ``model`` on ``inputs``: images uint8[N, H, W, C] or tokens int32[N, L].

    Each row must get the same answer alone, in a batch and in another order, in torch and in ONNX Runtime alike.

    Raises:
        StageFailed: a logit is not finite, the relative difference is above ``tolerance``, or an answer depends on the
            batch; names the module or node that makes it so.
    """
    network, rows_tolerance = copied(model).float().cpu().eval(), max(tolerance * ROWS_SHARE, ROUNDING)
    expected = _torch_logits(network, spec, inputs, spec.fixed or BATCH)
    got = run_onnx(path, inputs, exact_qdq=False, pad_id=spec.pad_id)
    if not (np.isfinite(expected).all() and np.isfinite(got).all()):
        raise StageFailed(f"{path.name}: logits are not finite (NaN or infinite); train with a lower learning rate")
    rows = unlike(inputs[:MOST])
    _refuse_dependent_answers(network, spec, rows, rows_tolerance)
    diff, largest = float(np.abs(got - expected).max()), float(np.abs(expected).max())
    report = ParityReport(
        max_abs_diff=diff,
        relative=diff / largest if largest else diff,
        top1_agreement=float((got.argmax(1) == expected.argmax(1)).mean()),
        images=len(inputs),
        vacuous=not np.ptp(expected, axis=0 if len(inputs) > 1 else 1).any(),
    )
    if report.relative > tolerance:
        raise StageFailed(
            f"{path.name}: ONNX Runtime and torch differ by {report.relative:.2e} of the largest logit "
            f"({diff:.2e} of {largest:.2e}) on {len(inputs)} {spec.input_name}, top-1 agreement "
            f"{report.top1_agreement:.4f}; rule: at most {tolerance:.2e} (export.parity_tolerance)"
        )
    refuse_dependent_rows(path, rows, False, rows_tolerance, spec.pad_id)
    return report


def _refuse_dependent_answers(network: nn.Module, spec: Spec, inputs: NDArray[Any], tolerance: float) -> None:
    """Nothing, if torch answers a row alike alone, in any order and at any padding that the exported graph meets."""

    def run(rows: NDArray[Any], batch: int) -> NDArray[np.float32]:
        return _torch_logits(network, spec, rows, batch)

    found = dependence(run, inputs, run(inputs, spec.fixed or BATCH), tolerance, spec.fixed)
    if not found:
        return
    culprit = blame(network, spec.read(inputs[:BLAMED]), tolerance)
    raise StageFailed(
        f"the network's answers depend on the batch: {found}; {culprit}; rule: a row's answer is its own, whoever its "
        f"neighbours are{PADDING if spec.pad_id is not None else ''}"
    )


def _torch_logits(network: nn.Module, spec: Spec, inputs: NDArray[Any], batch: int) -> NDArray[np.float32]:
    """float32[N, K] of the untraced ``network``, with the preprocessing written the plain way, ``batch`` at a time."""
    parts = []
    for start in range(0, len(inputs), batch):
        rows = inputs[start : start + batch]
        filled = np.concatenate([rows, np.repeat(rows[-1:], batch - len(rows), axis=0)]) if spec.fixed else rows
        try:
            with torch.inference_mode():
                parts.append(network(spec.read(spec.trimmed(filled)))[: len(rows)].numpy())
        except Exception as e:  # a network's forward may raise anything
            raise StageFailed(
                f"the network takes other batches, and for one of {len(filled)} it raises {type(e).__name__}: {e}; "
                "rule: a device asks for any number of answers at a time; or set export.batch to a number"
            ) from e
    return np.concatenate(parts)


def _refuse_too_large(model: nn.Module) -> None:
    size = sum(4 * t.numel() for t in [*model.parameters(), *model.buffers()])
    if size > SIZE_LIMIT_BYTES:
        raise StageFailed(
            f"the model holds {size:,} bytes of float32 weights; rule: at most {SIZE_LIMIT_BYTES:,} "
            f"in one ONNX file; choose a smaller model"
        )


def _refuse_other_outputs(wrapped: nn.Module, example: torch.Tensor, spec: Spec) -> None:
    count, kind = len(example), f"{str(example.dtype)[6:]}{list(example.shape)}"
    try:
        with torch.no_grad():
            out = wrapped(example)
    except Exception as e:  # a network's forward may raise anything
        raise ConfigError(f"the model cannot take {kind}: {e}") from e
    rule = "rule: one tensor of logits, float32[N, classes]"
    if not isinstance(out, torch.Tensor):
        raise ConfigError(f"the model's output is a {type(out).__name__}; {rule}")
    if out.ndim != 2 or len(out) != count or not out.is_floating_point():
        raise ConfigError(f"the model's output is {str(out.dtype)[6:]}{list(out.shape)} for a batch of {count}; {rule}")
    network, rows = wrapped.get_submodule(WRAPPED), spec.read(example.numpy())
    if spec.fixed is None and (why := refused_alone(network, rows)):
        raise ConfigError(f"{why}; rule: a device asks for one answer at a time")


def _exported(wrapped: nn.Module, example: torch.Tensor, spec: Spec) -> ModelProto:
    dynamic = (spec.dynamic(),) if spec.dynamic() else None
    try:
        program = torch.onnx.export(
            wrapped,
            (example,),
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=[spec.input_name],
            output_names=[OUTPUT],
            opset_version=max(spec.opset, EXPORTER_OPSET),
            external_data=False,
            optimize=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as e:
        remedy = (
            "set export.batch to a number and export.length to 'fixed'"
            if dynamic
            else "replace the layer that it names"
        )
        raise StageFailed(f"torch cannot export the model: {str(e).strip()}; {remedy}") from e
    if program is None:
        raise StageFailed("torch exported nothing; this torch has no dynamo exporter")
    return load(program.model_proto)
