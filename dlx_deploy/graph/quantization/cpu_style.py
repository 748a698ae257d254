"""Q/DQ as ONNX Runtime's CPU kernels want it: uint8 activations with a zero point, int8 weights per output channel.

Placed by ONNX Runtime's own quantizer, so that Conv, Gemm, MatMul, residual sums and pooling become QLinear kernels.
``reduce_range`` keeps a bit unused: x86 without VNNI sums products of 8-bit values in 16 bits, which overflow.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index, batch_size, load, to_bytes
from dlx_deploy.graph.passes.tidy import tidy
from dlx_deploy.graph.quantization.calibrate import Ranges
from dlx_deploy.graph.quantization.placement import excluded, quantizable, residuals

__all__ = ["quantize", "quantize_dynamically", "tensors_to_quantize"]

FOLLOWERS = ("Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Reshape")
"""Operators that stay in INT8 where their input already is."""


def tensors_to_quantize(model: ModelProto, exclude: Sequence[str] = ()) -> list[str]:
    """The activations whose range the quantizer may ask for: what to calibrate."""
    index = Index(model)
    names = [
        name
        for node in _chosen(index, excluded(model, exclude))
        for name in [*node.input, *node.output]
        if name in index.producer
    ]
    return list(dict.fromkeys(names))


def quantize(model: ModelProto, ranges: Ranges, reduce_range: bool, exclude: Sequence[str] = ()) -> ModelProto:
    """A copy of ``model`` (float32) with Q/DQ pairs around what runs faster in INT8, but for nodes excluded.

    Raises:
        ConfigError: a pattern in ``exclude`` matches no node.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorData, TensorsData, save_tensors_data

    chosen = _chosen(Index(model), excluded(model, exclude))
    if not chosen:
        return tidy(load(model))
    with tempfile.TemporaryDirectory() as folder:
        source, out, cache = (Path(folder) / name for name in ("source.onnx", "out.onnx", "ranges.json"))
        source.write_bytes(to_bytes(_marked(model)))
        bounds = {name: [np.asarray(v, dtype=np.float32) for v in pair] for name, pair in ranges.items()}
        data = {name: TensorData(lowest=low, highest=high) for name, (low, high) in bounds.items()}
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), cache)  # whatever method made them
        quantize_static(
            source,
            out,
            None,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted({node.op_type for node in chosen}),
            nodes_to_quantize=[node.name for node in chosen],
            per_channel=True,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},  # logits keep their resolution
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=cache,
        )
        return tidy(load(out))


def quantize_dynamically(model: ModelProto, reduce_range: bool, exclude: Sequence[str] = ()) -> ModelProto:
    """A copy of ``model`` whose matrix products with constant weights compute on int8.

    The range of their activations is found for each input while the network runs (DynamicQuantizeLinear), which suits
    sequences: nothing is clipped, and nothing needs calibration. It is one range for the whole tensor, so that in a
    batch an answer would depend on its neighbours: the copy takes one row at a time, by its own shape. Gemm stays in
    floating point: that is a classifier behind its pooling, where there is nothing to win.

    Raises:
        ConfigError: a pattern in ``exclude`` matches no node, or the graph has a fixed batch size above 1.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    chosen = [n for n in quantizable(Index(model), excluded(model, exclude)) if n.op_type == "MatMul"]
    if not chosen:
        return tidy(load(model))
    batch = batch_size(model)
    if batch and batch > 1:
        raise ConfigError(
            f"export.batch is {batch}, and with dynamic activations an answer would depend on its neighbours in the "
            "batch; set export.batch to 'dynamic' or 1, or quantize.activations to 'static'"
        )
    with tempfile.TemporaryDirectory() as folder:
        source, out = (Path(folder) / name for name in ("source.onnx", "out.onnx"))
        source.write_bytes(to_bytes(_marked(model)))
        quantize_dynamic(
            source,
            out,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=[node.name for node in chosen],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
        )
        return tidy(_one_row_at_a_time(_renamed(load(out), model)))


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


def _chosen(index: Index, left_out: set[str]) -> list[NodeProto]:
    """Layers, residual sums, and what follows them without leaving INT8; in graph order."""
    layers = quantizable(index, left_out)
    outputs = {node.output[0] for node in layers}
    sums = residuals(index, layers)
    for node in index.model.graph.node:
        follows = node.op_type in FOLLOWERS and node.input[0] in outputs
        if node.name not in left_out and (follows or node.output[0] in sums):
            outputs.add(node.output[0])
    return [node for node in index.model.graph.node if node.output[0] in outputs]


def _marked(model: ModelProto) -> ModelProto:
    """A copy that says that it needs no pre-processing: the exporter has folded constants and batch norms."""
    model = load(model)
    kept = {prop.key: prop.value for prop in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, "onnx.quant.pre_process": "onnxruntime.quant"})
    return model
