"""INT8 whose activations are quantized while the network runs, by ONNX Runtime's quantizer, behind the same plan."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator

from onnx import ModelProto

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index, batch_size, load, to_bytes
from dlx_deploy.graph.quantization.layers import quantizable
from dlx_deploy.runtime.scratch import Scratch

__all__ = ["dynamic_layers", "quantize_dynamically"]


def dynamic_layers(model: ModelProto, left_out: set[str]) -> list[str]:
    """The layers that compute on int8 with dynamic activations: matrix products with constant weights.

    Gemm stays in floating point: that is a classifier behind its pooling, where there is nothing to win.
    """
    return [node.name for node in quantizable(Index(model), left_out) if node.op_type == "MatMul"]


def quantize_dynamically(model: ModelProto, layers: Collection[str], reduce_range: bool) -> ModelProto:
    """A copy of ``model`` whose ``layers``, MatMul nodes, compute on int8.

    The range of their activations is found for each input while the network runs (DynamicQuantizeLinear), which suits
    sequences: nothing is clipped, and nothing needs calibration. It is one range for the whole tensor, so that in a
    batch an answer would depend on its neighbours: the copy takes one row at a time, by its own shape.

    Raises:
        ConfigError: the graph has a fixed batch size above 1.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    batch = batch_size(model)
    if batch and batch > 1:
        raise ConfigError(
            f"export.batch is {batch}, and with dynamic activations an answer would depend on its neighbours in the "
            "batch; set export.batch to 'dynamic' or 1, or quantize.activations to 'static'"
        )
    with Scratch("dlx-deploy-work") as folder, _no_advice():
        source, out = (folder / name for name in ("source.onnx", "out.onnx"))
        source.write_bytes(to_bytes(model))
        quantize_dynamic(
            source,
            out,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=list(layers),
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
        )
        return _one_row_at_a_time(_renamed(load(out), model))


def _renamed(written: ModelProto, source: ModelProto) -> ModelProto:
    """``written``, edited in place, with the names of Gemm nodes, which the quantizer splits into product and sum."""
    split = {f"{node.name}_MatMul": node.name for node in source.graph.node if node.op_type == "Gemm"}
    for node in written.graph.node:
        node.name = split.get(node.name, node.name)
    return written


def _one_row_at_a_time(model: ModelProto) -> ModelProto:
    """``model``, edited in place, with a batch of 1 for good."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return model


@contextlib.contextmanager
def _no_advice() -> Iterator[None]:
    """Without ONNX Runtime's advice to pre-process: the exporter has folded constants and batch norms."""

    def is_news(record: logging.LogRecord) -> bool:
        return "pre-processing" not in record.getMessage()

    root, silent = logging.getLogger(), logging.NullHandler()
    root.addFilter(is_news)
    root.addHandler(silent)  # without any, logging.warning() would set one up that prints
    try:
        yield
    finally:
        root.removeFilter(is_news)
        root.removeHandler(silent)
