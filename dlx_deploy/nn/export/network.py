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
from dlx_deploy.graph.checks.rows import BLAMED, MOST, dependence, refuse_dependent_rows, unlike
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.model import load, to_bytes
from dlx_deploy.graph.passes.base import run_passes
from dlx_deploy.graph.passes.exported import exported_passes
from dlx_deploy.graph.passes.names import WRAPPED
from dlx_deploy.graph.samples import Arrays, Samples
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


def check_parity(path: Path, model: nn.Module, spec: Spec, samples: Samples, tolerance: float) -> ParityReport:
    """How the file in ``path`` differs from ``model`` on ``samples``.

    Each row must get the same answer alone, in a batch and in another order, in torch and in ONNX Runtime alike.

    Raises:
        StageFailed: a logit is not finite, the relative difference is above ``tolerance``, or an answer depends on the
            batch; names the module or node that makes it so.
    """
    network, rows_tolerance = copied(model).float().cpu().eval(), max(tolerance * ROWS_SHARE, ROUNDING)
    expected = _torch_outputs(network, spec, samples, spec.fixed or BATCH)
    answers = run_onnx(path, samples, exact_qdq=False)
    for name in spec.outputs:
        if not (np.isfinite(expected[name]).all() and np.isfinite(answers[name]).all()):
            raise StageFailed(f"{path.name}: {name} are not finite (NaN or infinite); train with a lower learning rate")
    rows = unlike(samples[:MOST])
    _refuse_dependent_answers(network, spec, rows, rows_tolerance)
    report = max((_compared(answers[name], expected[name]) for name in spec.outputs), key=lambda r: r.relative)
    if report.relative > tolerance:
        raise StageFailed(
            f"{path.name}: ONNX Runtime and torch differ by {report.relative:.2e} of the largest logit "
            f"({report.max_abs_diff:.2e}) on {len(samples)} {' and '.join(spec.inputs)}, top-1 agreement "
            f"{report.top1_agreement:.4f}; rule: at most {tolerance:.2e} (export.parity_tolerance)"
        )
    refuse_dependent_rows(path, rows, False, rows_tolerance)
    return report


def _compared(answers: NDArray[np.float32], expected: NDArray[np.float32]) -> ParityReport:
    """``expected`` is torch's: float32[N, K, ...], with classes or the like on the second axis."""
    diff, largest = float(np.abs(answers - expected).max()), float(np.abs(expected).max())
    return ParityReport(
        max_abs_diff=diff,
        relative=diff / largest if largest else diff,
        top1_agreement=float((answers.argmax(1) == expected.argmax(1)).mean()),
        images=len(expected),
        vacuous=not np.ptp(expected, axis=0 if len(expected) > 1 else 1).any(),
    )


def _refuse_dependent_answers(network: nn.Module, spec: Spec, samples: Samples, tolerance: float) -> None:
    """Nothing, if torch answers a row alike alone, in any order and at any padding that the exported graph meets."""

    def run(rows: Samples, batch: int) -> Arrays:
        return _torch_outputs(network, spec, rows, batch)

    depends = dependence(run, samples, run(samples, spec.fixed or BATCH), tolerance, spec.fixed)
    if not depends:
        return
    culprit = blame(network, spec.read(samples[:BLAMED]), tolerance)
    raise StageFailed(
        f"the network's answers depend on the batch: {depends}; {culprit}; rule: a row's answer is its own, whoever "
        f"its neighbours are{spec.advice}"
    )


def _torch_outputs(network: nn.Module, spec: Spec, samples: Samples, batch: int) -> Arrays:
    """What the untraced ``network`` gives, with the preprocessing written the plain way, ``batch`` at a time."""
    parts = []
    for part in samples.batches(batch, fill=spec.fixed is not None):
        try:
            with torch.inference_mode():
                parts.append(_named(network(*spec.read(spec.trimmed(part))), spec))
        except Exception as e:  # a network's forward may raise anything
            raise StageFailed(
                f"the network takes other batches, and for one of {len(part)} it raises {type(e).__name__}: {e}; "
                "rule: a device asks for any number of answers at a time; or set export.batch to a number"
            ) from e
    return {name: np.concatenate([part[name] for part in parts])[: len(samples)] for name in spec.outputs}


def _named(outputs: Any, spec: Spec) -> Arrays:
    """A network's output, one tensor or as many as ``spec`` names, as arrays by name.

    Raises:
        ConfigError: it is something else.
    """
    tensors = outputs if isinstance(outputs, tuple) and len(spec.outputs) > 1 else (outputs,)
    if len(tensors) != len(spec.outputs) or not all(isinstance(t, torch.Tensor) for t in tensors):
        raise ConfigError(f"the model's output is a {type(outputs).__name__}; rule: {spec.rule}")
    return {name: tensor.numpy() for name, tensor in zip(spec.outputs, tensors, strict=True)}


def _refuse_too_large(model: nn.Module) -> None:
    size = sum(4 * t.numel() for t in [*model.parameters(), *model.buffers()])
    if size > SIZE_LIMIT_BYTES:
        raise StageFailed(
            f"the model holds {size:,} bytes of float32 weights; rule: at most {SIZE_LIMIT_BYTES:,} "
            f"in one ONNX file; choose a smaller model"
        )


def _refuse_other_outputs(wrapped: nn.Module, example: tuple[torch.Tensor, ...], spec: Spec) -> None:
    kind = " and ".join(f"{str(t.dtype)[6:]}{list(t.shape)}" for t in example)
    try:
        with torch.no_grad():
            out = wrapped(*example)
    except Exception as e:  # a network's forward may raise anything
        raise ConfigError(f"the model cannot take {kind}: {e}") from e
    if wrong := spec.misshapen(_named(out, spec), len(example[0])):
        raise ConfigError(f"the model's output is {wrong}")
    stored = {name: tensor.numpy() for name, tensor in zip(spec.inputs, example, strict=True)}
    network, rows = wrapped.get_submodule(WRAPPED), spec.read(Samples(stored))
    if spec.fixed is None and (why := refused_alone(network, rows)):
        raise ConfigError(f"{why}; rule: a device asks for one answer at a time")


def _exported(wrapped: nn.Module, example: tuple[torch.Tensor, ...], spec: Spec) -> ModelProto:
    dynamic = spec.dynamic() if any(spec.dynamic()) else None
    try:
        program = torch.onnx.export(
            wrapped,
            example,
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
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
