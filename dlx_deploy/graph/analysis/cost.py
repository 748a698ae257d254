"""What an ONNX graph costs: multiply-accumulates and memory traffic of each fused layer; no torch.

Fusion is modelled as TensorRT does it: a convolution or matrix product takes along the pointwise nodes behind it
(bias, activation, residual sum) as long as nobody else reads what lies between; Q/DQ pairs and reshapes cost nothing;
pointwise nodes in a row are one layer. Shapes are those of a batch of one image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import NBITS, QDQ, Index, TensorInfo, infer, int_attribute, load
from dlx_deploy.targets.profile import Precision
from dlx_deploy.targets.roofline import LayerCost

__all__ = ["ModelSummary", "layer_costs", "model_summary"]

RECURRENT = ("LSTM", "GRU", "RNN")
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", NBITS, "Einsum", "Attention", *RECURRENT)
ALIASES = (*QDQ, "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
POINTWISE = frozenset(
    (
        "Abs",
        "Add",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Log",
        "Max",
        "Min",
        "Mish",
        "Mul",
        "Neg",
        "PRelu",
        "Pow",
        "Reciprocal",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Tanh",
        "Transpose",
        "Where",
    )
)
BYTES: dict[int, int] = {TensorProto.DOUBLE: 8, TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.BFLOAT16: 2}
PRECISIONS: dict[int, Precision] = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
WEIGHT_TYPES = (*BYTES, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.FLOAT8E4M3FN)
INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


@dataclass(frozen=True)
class ModelSummary:
    """Multiply-accumulates for one image, parameters (weights and biases as the graph stores them), file size."""

    macs: int
    parameters: int
    size_bytes: int


@dataclass
class _Layer:
    """A fused layer while it grows: ``end`` is the tensor that it makes so far."""

    name: str
    op: str
    macs: int
    dtype: Precision
    memory_bound: bool
    end: str
    inputs: list[str] = field(default_factory=list)
    weights: set[str] = field(default_factory=set)


def layer_costs(model: Path | bytes | ModelProto) -> list[LayerCost]:
    """The cost of each fused layer for one image, in graph order; a fixed batch is counted down to one image.

    Raises:
        StageFailed: a shape that a cost depends on cannot be inferred.
    """
    return _Costs(load(model)).layers()


def model_summary(model: Path | bytes | ModelProto) -> ModelSummary:
    """What a model amounts to; scales, zero points and integer constants are no parameters.

    Raises:
        StageFailed: a shape that a cost depends on cannot be inferred.
    """
    proto = load(model)
    size = model.stat().st_size if isinstance(model, Path) else proto.ByteSize()
    index = Index(proto)
    parameters = sum(_numbers(t, index) for t in proto.graph.initializer if _is_parameter(t, index))
    return ModelSummary(sum(c.macs for c in layer_costs(proto)), parameters, size)


def _numbers(tensor: TensorProto, index: Index) -> int:
    """How many it stands for: MatMulNBits stores two in a byte."""
    packed = any(node.op_type == NBITS for node in index.readers(tensor.name))
    return int(np.prod(tensor.dims)) * (2 if packed else 1)


def _is_parameter(tensor: TensorProto, index: Index) -> bool:
    """Whether some node computes with it: not a scale, a zero point, a shape, or a single number."""
    readers = index.readers(tensor.name)
    role = any(_computes_with(n, tensor.name) for n in readers)
    return tensor.data_type in (*WEIGHT_TYPES, TensorProto.INT32) and bool(tensor.dims) and role


def _computes_with(node: NodeProto, name: str) -> bool:
    """Whether what the node reads as ``name`` is no scale."""
    first = {NBITS: node.input[:2]}.get(node.op_type, node.input[:1] if node.op_type in QDQ else node.input)
    return name in first


class _Costs:
    """One pass over a graph, gathering nodes into fused layers."""

    def __init__(self, model: ModelProto) -> None:
        self._index = Index(model)
        self._info = infer(model, batch=1)
        self._batch = max(self._info[model.graph.input[0].name].shape[0], 1)  # above 1 only where it is fixed
        self._done: list[_Layer] = []
        self._growing: dict[str, _Layer] = {}
        self._source: dict[str, str] = {}  # a view or a dequantized tensor → the tensor that it shows

    def layers(self) -> list[LayerCost]:
        for node in self._index.model.graph.node:
            if node.op_type in ALIASES:
                self._source[node.output[0]] = self._behind(node.input[0])
            elif node.op_type in HEAVY or self._shape(_first_output(node)).dtype not in INTEGERS:
                self._place(node)
        return [self._cost(layer) for layer in self._done]

    def _place(self, node: NodeProto) -> None:
        names = [name for name in node.input if name]
        names = [name for name in names if self._shape(name).dtype not in INTEGERS]  # no indices, no shapes
        weights = {name for name in names if self._behind(name) in self._index.initializers}
        activations = [name for name in names if name not in weights]
        layer = self._open(node, activations) if node.op_type in POINTWISE else None
        if layer is None:
            layer = self._new(node)
            self._done.append(layer)
        else:
            activations.remove(next(n for n in activations if self._behind(n) == layer.end))
        layer.inputs += activations
        layer.weights |= weights
        layer.end = _first_output(node)
        self._growing[layer.end] = layer

    def _open(self, node: NodeProto, activations: list[str]) -> _Layer | None:
        """The layer that the node joins, of those whose end only this node reads.

        A sum joins the input that comes without Q/DQ, else the larger of two convolutions: a shortcut is the smaller.
        """
        candidates = []
        for name in activations:
            end = self._behind(name)
            if end in self._growing and len(self._final_readers(end)) == 1:
                layer = self._growing[end]
                candidates.append((name == end, layer.macs, self._done.index(layer), layer))
        return max(candidates, key=lambda item: item[:3])[3] if candidates else None

    def _new(self, node: NodeProto) -> _Layer:
        info = self._shape(_first_output(node))
        light = node.op_type not in HEAVY or self._is_depthwise(node)
        return _Layer(
            node.name, node.op_type, self._macs(node), self._precision(node, info), light, _first_output(node)
        )

    def _cost(self, layer: _Layer) -> LayerCost:
        readers = self._index.readers(layer.end)
        int8 = bool(readers) and all(node.op_type == "QuantizeLinear" for node in readers)
        written = self._shape(layer.end).elements * (1 if int8 else self._width(layer.end))
        return LayerCost(
            name=layer.name,
            op=layer.op,
            macs=layer.macs // self._batch,
            weight_bytes=sum(self._bytes(name) for name in layer.weights),
            input_bytes=sum(self._bytes(name) for name in layer.inputs) // self._batch,
            output_bytes=written // self._batch,
            dtype=layer.dtype,
            memory_bound=layer.memory_bound,
        )

    def _bytes(self, name: str) -> int:
        """What reading the tensor costs: one byte an element where it is read through DequantizeLinear."""
        made = self._index.producer.get(name)
        while made is not None and made.op_type in ALIASES and made.op_type != "DequantizeLinear":
            made = self._index.producer.get(made.input[0])
        int8 = made is not None and made.op_type == "DequantizeLinear"
        stored = self._index.initializers.get(self._behind(name))
        int32 = stored is not None and stored.data_type == TensorProto.INT32
        if stored is not None and stored.data_type == TensorProto.INT4:
            return -(-self._shape(self._behind(name)).elements // 2)
        return self._shape(self._behind(name)).elements * (1 if int8 and not int32 else self._width(name))

    def _macs(self, node: NodeProto) -> int:
        if node.op_type not in HEAVY:
            return 0
        x, out = self._known(node.input[0]), self._known(_first_output(node))
        w = self._known(node.input[1]) if len(node.input) > 1 else x
        if node.op_type == "Conv":
            return out.elements * w.elements // w.shape[0]
        if node.op_type == "ConvTranspose":
            return x.elements * w.elements // w.shape[0]
        if node.op_type in RECURRENT:  # x: [length, batch, width]; w, r: [directions, gates * hidden, width or hidden]
            return x.shape[0] * x.shape[1] * (w.elements + self._shape(node.input[2]).elements)
        if node.op_type == "Attention":  # queries by keys, and what they weigh by values
            return (x.elements + out.elements) * w.shape[-2]
        if node.op_type == "Einsum":
            return out.elements * self._summed(node)
        inner = x.shape[0] if node.op_type == "Gemm" and int_attribute(node, "transA", 0) else x.shape[-1]
        return out.elements * inner

    def _summed(self, node: NodeProto) -> int:
        """How many products an Einsum adds up for each element that it gives."""
        equation = next(a.s.decode() for a in node.attribute if a.name == "equation").replace(" ", "")
        terms, _, kept = equation.partition("->")
        sizes: dict[str, int] = {}
        for term, name in zip(terms.split(","), node.input, strict=True):
            shape = self._shape(name).shape
            before, _, after = term.partition("...")
            sizes |= dict(zip(before, shape, strict=False))
            sizes |= dict(zip(reversed(after), reversed(shape), strict=False))
        if "->" not in equation:
            kept = "".join(letter for letter in sizes if terms.count(letter) == 1)
        return math.prod(size for letter, size in sizes.items() if letter not in kept)

    def _precision(self, node: NodeProto, info: TensorInfo) -> Precision:
        if node.op_type == "MatMulInteger":
            return "int8"
        if node.op_type == NBITS or self._stores(node, TensorProto.INT4):
            return "int4"
        makers = [self._index.made_by(name, "DequantizeLinear") for name in node.input[:2]]
        if node.op_type in HEAVY and len(makers) == 2 and all(makers):
            return "fp8" if self._stores(node, TensorProto.FLOAT8E4M3FN) else "int8"
        return PRECISIONS.get(info.dtype, "fp32")

    def _stores(self, node: NodeProto, kind: int) -> bool:
        """Whether its weights are stored as ``kind``."""
        stored = [self._index.initializers.get(self._behind(name)) for name in node.input[1:2]]
        return any(tensor is not None and tensor.data_type == kind for tensor in stored)

    def _is_depthwise(self, node: NodeProto) -> bool:
        if node.op_type not in ("Conv", "ConvTranspose"):
            return False
        return int_attribute(node, "group", 1) == self._shape(node.input[0]).shape[1] > 1

    def _behind(self, name: str) -> str:
        return self._source.get(name, name)

    def _final_readers(self, name: str) -> list[NodeProto]:
        """The nodes that read the tensor, or a view or a dequantized form of it."""
        readers = []
        for node in self._index.readers(name):
            readers += self._final_readers(node.output[0]) if node.op_type in ALIASES else [node]
        return readers

    def _width(self, name: str) -> int:
        return BYTES.get(self._shape(name).dtype, 1)

    def _known(self, name: str) -> TensorInfo:
        """As ``_shape``, where multiply-accumulates depend on every dimension."""
        info = self._shape(name)
        if min(info.shape, default=0) < 0:
            raise StageFailed(
                f"tensor {name!r} has shape {list(info.shape)} for one sample, where -1 depends on its content; "
                "replace what makes it by something of a fixed size"
            )
        return info

    def _shape(self, name: str) -> TensorInfo:
        info = self._info.get(name)
        if info is None or not info.dtype:
            raise StageFailed(f"the type and shape of tensor {name!r} cannot be inferred; export with a fixed batch")
        return info


def _first_output(node: NodeProto) -> str:
    """The first output that somebody wanted: of a recurrent layer it may be the last state alone."""
    return next(str(name) for name in node.output if name)
