"""A PyTorch network as ONNX: uint8 NHWC images or int32 tokens in, float32 outputs with the names of their task.

For images the graph starts with Cast (TensorRT accepts uint8 only as the input of a cast), Transpose, Mul and Add, and
goes on with the model; batch norm is folded into convolutions. Nodes carry the names of the modules they came from
(``layer1.0.conv2/Conv``), so that patterns in a configuration can name layers. The same weights give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import ModelProto
from torch import nn

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.model import input_dims, load, to_bytes
from dlx_deploy.graph.passes.base import run_passes
from dlx_deploy.graph.passes.exported import exported_passes
from dlx_deploy.graph.passes.names import WRAPPED
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.export.bake import baked
from dlx_deploy.nn.export.rows import refused_alone
from dlx_deploy.nn.export.spec import Spec, misshapen, named_outputs

__all__ = ["export_onnx"]

EXPORTER_OPSET = 18
"""The exporter's own; it converts to newer ones, and ``lower`` to older ones."""
SIZE_LIMIT_BYTES = 2**31 - 2**20
"""A protobuf message ends at 2 GiB; the graph itself gets the last MiB."""


def export_onnx(model: nn.Module, path: Path, spec: Spec) -> None:
    """Write the model to ``path``; the model itself is left as it was, training mode included.

    Raises:
        ConfigError: the model cannot take such inputs, or gives something else than ``spec.outputs``.
        StageFailed: it is over 2 GiB, torch cannot export it, or an operator does not exist at the opset.
    """
    _refuse_too_large(model)
    wrapped = spec.wrap(baked(model)).eval()
    example = spec.example()
    _refuse_other_outputs(wrapped, example, spec)
    graph = _exported(wrapped, example, spec)
    _refuse_frozen(graph, spec)
    onnx.helper.set_model_props(graph, spec.metadata())
    path.write_bytes(to_bytes(run_passes(graph, exported_passes(spec.opset), path.name)))


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
    if wrong := misshapen(spec.outputs, named_outputs(out, spec.outputs), len(example[0])):
        raise ConfigError(f"the model's output is {wrong}")
    stored = {name: tensor.numpy() for name, tensor in zip(spec.inputs, example, strict=True)}
    network, rows = wrapped.get_submodule(WRAPPED), spec.read(Samples(stored))
    if spec.fixed is None and (why := refused_alone(network, rows)):
        raise ConfigError(f"{why}; rule: a device asks for one answer at a time")


def _refuse_frozen(graph: ModelProto, spec: Spec) -> None:
    """Nothing, if what is to stay open did: torch takes a size that became a plain number for the only one there is."""
    dims = input_dims(graph)
    for name, still_open in zip(spec.inputs, spec.dynamic(), strict=True):
        for axis in (axis for axis in still_open if dims[name][axis] is not None):
            what, key = (
                ("batch size", "export.batch to a number") if not axis else ("length", "export.length to 'fixed'")
            )
            raise StageFailed(
                f"the exported graph takes one {what} alone, that of the example it was traced with "
                f"({dims[name][axis]}): the model's forward makes a plain number of it, as len(x), "
                f"int(x.shape[{axis}]) and a loop over it do; use x.shape[{axis}] or x.size({axis}), or set {key}"
            )


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
