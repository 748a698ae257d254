"""A PyTorch classifier as ONNX: uint8 NHWC images in, float32 logits out, everything between inside the graph.

The graph starts with Cast (TensorRT accepts uint8 only as the input of a cast), Transpose, Mul and Add, and goes on
with the model; batch norm is folded into convolutions. Nodes carry the names of the modules they came from
(``layer1.0.conv2/Conv``), so that patterns in a configuration can name layers. The same weights give the same bytes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import nn

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.nn.evaluation import run_onnx
from dlx_deploy.nn.onnx_model import INPUT, OUTPUT, load, to_bytes
from dlx_deploy.nn.opset import OLDEST, lower
from dlx_deploy.nn.rewrite import WRAPPED, rewrite

__all__ = ["ExportSpec", "ParityReport", "check_parity", "export_onnx"]

EXPORTER_OPSET = 18
"""The exporter's own; it converts to newer ones, and ``lower`` to older ones."""
NEWEST = 25
SIZE_LIMIT_BYTES = 2**31 - 2**20
"""A protobuf message ends at 2 GiB; the graph itself gets the last MiB."""


@dataclass(frozen=True)
class ExportSpec:
    """What the ONNX looks like from outside: input size, normalisation (0..1 scale, per channel), opset and batch."""

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    opset: int = 20
    batch: int | Literal["dynamic"] = "dynamic"

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ConfigError(f"{name} is {values!r}; rule: one value for each of the {self.channels} channels")
        if min(self.std) <= 0:
            raise ConfigError(f"std is {self.std!r}; rule: above 0")
        if not OLDEST <= self.opset <= NEWEST:
            raise ConfigError(f"opset is {self.opset}; rule: {OLDEST} to {NEWEST}")
        if self.batch != "dynamic" and self.batch < 1:
            raise ConfigError(f"batch is {self.batch!r}; rule: 'dynamic', or 1 or more")


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


class _Deployable(nn.Module):
    """The model behind its preprocessing: ``images`` uint8[N, H, W, C], NHWC, 0..255 → logits float32[N, K]."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, model: nn.Module, spec: ExportSpec) -> None:
        super().__init__()
        self.add_module(WRAPPED, model)
        mean, std = (torch.tensor(v, dtype=torch.float64).reshape(-1, 1, 1) for v in (spec.mean, spec.std))
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("shift", (-mean / std).float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # Without .contiguous() the strides stay channels-last, and adaptive pooling is traced into index arithmetic.
        planes = images.to(torch.float32).permute(0, 3, 1, 2).contiguous()  # (N, C, H, W)
        logits: torch.Tensor = self.get_submodule(WRAPPED)(planes * self.scale + self.shift)  # (N, K)
        return logits


def export_onnx(model: nn.Module, path: Path, spec: ExportSpec) -> None:
    """Write the model to ``path``; the model itself is left as it was, training mode included.

    Raises:
        ConfigError: the model cannot take such images, or its output is not [N, classes].
        StageFailed: it is over 2 GiB, torch cannot export it, or an operator does not exist at the opset.
    """
    _refuse_too_large(model)
    wrapped = _Deployable(copy.deepcopy(model).float().cpu(), spec).eval()
    example = torch.zeros(_example_batch(spec), spec.height, spec.width, spec.channels, dtype=torch.uint8)
    _refuse_other_outputs(wrapped, example)
    graph = lower(rewrite(_exported(wrapped, example, spec)), spec.opset)
    onnx.checker.check_model(graph, full_check=True)
    path.write_bytes(to_bytes(graph))


def check_parity(
    path: Path, model: nn.Module, spec: ExportSpec, images: NDArray[np.uint8], tolerance: float
) -> ParityReport:
    """How the file in ``path`` differs from ``model`` on ``images`` (uint8[N, H, W, C], NHWC, 0..255).

    Raises:
        StageFailed: a logit is not finite, or the relative difference is above ``tolerance``.
    """
    expected = _torch_logits(model, spec, images)
    got = run_onnx(path, images, exact_qdq=False)
    if not (np.isfinite(expected).all() and np.isfinite(got).all()):
        raise StageFailed(f"{path.name}: logits are not finite (NaN or infinite); train with a lower learning rate")
    diff, largest = float(np.abs(got - expected).max()), float(np.abs(expected).max())
    report = ParityReport(
        max_abs_diff=diff,
        relative=diff / largest if largest else diff,
        top1_agreement=float((got.argmax(1) == expected.argmax(1)).mean()),
        images=len(images),
        vacuous=not np.ptp(expected, axis=0 if len(images) > 1 else 1).any(),
    )
    if report.relative > tolerance:
        raise StageFailed(
            f"{path.name}: ONNX Runtime and torch differ by {report.relative:.2e} of the largest logit "
            f"({diff:.2e} of {largest:.2e}) on {len(images)} images, top-1 agreement {report.top1_agreement:.4f}; "
            f"rule: at most {tolerance:.2e} (export.parity_tolerance)"
        )
    return report


def _torch_logits(model: nn.Module, spec: ExportSpec, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32[N, K] of an untraced copy, with the preprocessing written the plain way."""
    network = copy.deepcopy(model).float().cpu().eval()
    mean, std = np.array(spec.mean), np.array(spec.std)
    batches = []
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            planes = ((images[start : start + 64] / 255.0 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
            batches.append(network(torch.from_numpy(np.ascontiguousarray(planes))).numpy())
    return np.concatenate(batches)


def _example_batch(spec: ExportSpec) -> int:
    return 2 if spec.batch == "dynamic" else spec.batch  # a batch of 1 would be taken for a constant


def _refuse_too_large(model: nn.Module) -> None:
    size = sum(4 * t.numel() for t in [*model.parameters(), *model.buffers()])
    if size > SIZE_LIMIT_BYTES:
        raise StageFailed(
            f"the model holds {size:,} bytes of float32 weights; rule: at most {SIZE_LIMIT_BYTES:,} "
            f"in one ONNX file; choose a smaller model"
        )


def _refuse_other_outputs(wrapped: nn.Module, example: torch.Tensor) -> None:
    count, height, width, channels = example.shape
    try:
        with torch.no_grad():
            out = wrapped(example)
    except (RuntimeError, ValueError, TypeError) as e:
        raise ConfigError(f"the model cannot take float32[{count}, {channels}, {height}, {width}] images: {e}") from e
    rule = "rule: one tensor of logits, float32[N, classes]"
    if not isinstance(out, torch.Tensor):
        raise ConfigError(f"the model's output is a {type(out).__name__}; {rule}")
    if out.ndim != 2 or len(out) != count or not out.is_floating_point():
        raise ConfigError(f"the model's output is {str(out.dtype)[6:]}{list(out.shape)} for {count} images; {rule}")


def _exported(wrapped: nn.Module, example: torch.Tensor, spec: ExportSpec) -> ModelProto:
    dynamic = ({0: torch.export.Dim("batch")},) if spec.batch == "dynamic" else None
    try:
        program = torch.onnx.export(
            wrapped,
            (example,),
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=max(spec.opset, EXPORTER_OPSET),
            external_data=False,
            optimize=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as e:
        remedy = "set export.batch to a fixed number" if dynamic else "replace the layer that it names"
        raise StageFailed(f"torch cannot export the model: {str(e).strip()}; {remedy}") from e
    if program is None:
        raise StageFailed("torch exported nothing; this torch has no dynamo exporter")
    return load(program.model_proto)
