"""Reading, indexing and writing ONNX models: what export, quantization and the cost model share; no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.shapes import folded

__all__ = [
    "LAYERS",
    "MAX_LENGTH",
    "NBITS",
    "QDQ",
    "STANDARD",
    "WEIGHTED",
    "Index",
    "TensorInfo",
    "attribute",
    "batch_size",
    "float_attribute",
    "infer",
    "input_dims",
    "int_attribute",
    "load",
    "max_length",
    "opset",
    "to_bytes",
]

LAYERS = ("Conv", "Gemm", "MatMul")
"""Layers with weights that every quantization scheme knows."""
WEIGHTED = (*LAYERS, "ConvTranspose")
"""Layers with weights."""
QDQ = ("QuantizeLinear", "DequantizeLinear")
"""What rounds a tensor to integers, and what makes real numbers of them again."""
NBITS = "MatMulNBits"
"""ONNX Runtime's own product with weights of 4 bits, whose shape ONNX does not know (``passes.nbits``)."""
STANDARD = ("", "ai.onnx")
"""The names of ONNX's own domain."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's ONNX element type and its shape; an unknown or symbolic dimension is -1."""

    dtype: int
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many elements it holds; an unknown dimension counts as one."""
        return int(np.prod([max(d, 1) if d < 0 else d for d in self.shape], dtype=np.int64))


@dataclass
class Index:
    """Who makes and who reads each tensor of a graph; stale once the graph is edited."""

    model: ModelProto
    producer: dict[str, NodeProto] = field(default_factory=dict)
    consumers: dict[str, list[NodeProto]] = field(default_factory=dict)
    initializers: dict[str, TensorProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.initializers = {t.name: t for t in graph.initializer}
        for node in graph.node:
            self.producer.update((name, node) for name in node.output if name)
            for name in dict.fromkeys(node.input):
                if name:
                    self.consumers.setdefault(name, []).append(node)

    def readers(self, name: str) -> list[NodeProto]:
        """The nodes that read the tensor, in graph order, each once."""
        return self.consumers.get(name, [])

    def made_by(self, name: str, *op_types: str) -> NodeProto | None:
        """The node that makes the tensor if it is one of ``op_types``."""
        node = self.producer.get(name)
        return node if node is not None and node.op_type in op_types else None

    def array(self, name: str) -> NDArray[np.generic]:
        """The initializer's values, in its own dtype and shape."""
        return np.asarray(numpy_helper.to_array(self.initializers[name]))


def load(source: Path | bytes | ModelProto) -> ModelProto:
    """A model that the caller owns: parsed from a file or bytes, or a copy.

    Raises:
        StageFailed: the file or the bytes are no ONNX model.
    """
    if isinstance(source, ModelProto):
        copy = ModelProto()
        copy.CopyFrom(source)
        return copy
    where = "the bytes" if isinstance(source, bytes) else str(source)
    try:
        return onnx.load_model_from_string(source if isinstance(source, bytes) else source.read_bytes())
    except OSError as e:
        raise StageFailed(f"{where}: cannot be read ({e.strerror})") from e
    except DecodeError as e:
        raise StageFailed(f"{where}: no ONNX model ({e}); export it again") from e


MAX_LENGTH = "max_length"
"""The key in the model's metadata: see ``max_length``."""


def to_bytes(model: ModelProto) -> bytes:
    """The model as bytes; equal models give equal bytes."""
    return bytes(model.SerializeToString(deterministic=True))


def opset(model: ModelProto) -> int:
    """The version of the standard operator set that the model imports."""
    return next(int(i.version) for i in model.opset_import if i.domain in STANDARD)


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """The value of a node's attribute, or ``default`` where it is not set."""
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def int_attribute(node: NodeProto, name: str, default: int) -> int:
    """The value of an integer attribute, or ``default`` where it is not set."""
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def float_attribute(node: NodeProto, name: str, default: float) -> float:
    """The value of an attribute that is a number with a fraction, or ``default`` where it is not set."""
    return next((float(item.f) for item in node.attribute if item.name == name), default)


def max_length(model: ModelProto) -> int:
    """The longest sequence that a model of dynamic length takes; 0 where the length is fixed, and for images."""
    return next((int(p.value) for p in model.metadata_props if p.key == MAX_LENGTH), 0)


def batch_size(model: ModelProto) -> int | None:
    """The fixed batch size of the model's first input; ``None`` where any will do."""
    return int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value) or None


def input_dims(model: ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Input name → its dimensions, the batch first; ``None`` where any will do."""
    return {
        entry.name: tuple(dim.dim_value or None for dim in entry.type.tensor_type.shape.dim)
        for entry in model.graph.input
    }


def infer(model: ModelProto, batch: int | None = None) -> dict[str, TensorInfo]:
    """Every tensor's type and shape, by name; ``batch`` stands in for a symbolic first dimension of the inputs.

    With it a dynamic length becomes the longest that the model takes, and shapes that the graph computes from those of
    its inputs are worked out.

    Raises:
        StageFailed: ONNX's shape inference refuses the graph.
    """
    model = _with_known_products(load(model))
    if batch is not None:
        for value in model.graph.input:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                dim.dim_value = dim.dim_value or (max_length(model) if axis else batch)
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        del model.graph.value_info[:]
    try:
        if batch is None:
            inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        else:
            inferred = folded(model)
    except onnx.shape_inference.InferenceError as e:
        raise StageFailed(f"shape inference refuses the graph: {e}") from e
    values = {v.name: _info(v) for v in [*inferred.input, *inferred.value_info, *inferred.output]}
    values.update((t.name, TensorInfo(t.data_type, tuple(t.dims))) for t in inferred.initializer)
    return values


def _with_known_products(model: ModelProto) -> ModelProto:
    """``model``, edited in place, with a MatMul of float32 in place of each MatMulNBits: shapes alone are looked at."""
    for node in model.graph.node:
        if node.op_type == NBITS:
            name, dims = f"{node.output[0]}/weights", [int_attribute(node, key, 0) for key in "KN"]
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
            plain = onnx.helper.make_node("MatMul", [node.input[0], name], list(node.output), name=node.name)
            node.CopyFrom(plain)
    return model


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    dims = (d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return TensorInfo(int(tensor.elem_type), tuple(int(d) for d in dims))
