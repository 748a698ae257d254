"""A float32 graph, with or without Q/DQ, as a strongly typed one in half precision; no torch.

Every type is written into the graph, by float16 initializers and casts, so that a builder has nothing to choose. What
half precision computes badly stays in float32: powers, roots, logarithms and sums of many terms, constants that it
cannot hold, and tensors that come near its largest number on the calibration images (Micikevicius et al. 2017, arXiv
1710.03740, keep the same kinds of operations in single precision).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import QDQ, Index, attribute, infer, load, opset
from dlx_deploy.graph.passes.tidy import tidy

__all__ = ["LARGEST", "QDQ_IN_HALF", "STEPS", "HalfKind", "float_tensors", "half_precision"]

HalfKind = Literal["fp16", "bf16"]

QDQ_IN_HALF = 19
"""The first opset whose QuantizeLinear and DequantizeLinear know float16."""
LARGEST = float(np.finfo(np.float16).max)
HEADROOM = 8.0
"""Calibration sees few images: a tensor may be this many times larger than what it saw before it overflows."""
STEPS = 128
"""What an int8 holds of its scale: a DequantizeLinear gives up to so many times it, and never more."""
FP8_STEPS = 448
"""And an E4M3."""
SMALLEST = float(np.finfo(np.float16).smallest_normal)

FLOAT = TensorProto.FLOAT
ELEMENTS: Mapping[HalfKind, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
ENDS: Mapping[HalfKind, tuple[float, float]] = {
    "fp16": (LARGEST, SMALLEST),
    "bf16": (float(np.finfo(np.float32).max) / HEADROOM / 2, float(np.finfo(np.float32).tiny)),
}
"""What is safe to come near, and the smallest number that keeps its bits: bfloat16 has float32's exponent."""
IN_FLOAT = frozenset(
    (
        "Constant",
        "ConstantOfShape",
        "CumSum",
        "Exp",
        "GroupNormalization",
        "InstanceNormalization",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "Pow",
        "RandomNormal",
        "RandomUniform",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Sqrt",
    )
)


def float_tensors(model: ModelProto) -> list[str]:
    """The float32 tensors that the graph computes, in graph order: what to look at for overflow."""
    types = infer(model)
    return [n for node in model.graph.node for n in node.output if n in types and types[n].dtype == FLOAT]


def half_precision(
    model: ModelProto, largest: Mapping[str, float], kept: Collection[str] = (), kind: HalfKind = "fp16"
) -> ModelProto:
    """A copy of ``model`` that computes in float16 (or, by ``kind``, in bfloat16) wherever that is safe and its opset
    allows it; inputs and outputs keep their types.

    ``largest``: the largest magnitude seen of a tensor; one that is not in it is taken to be small. ``kept``: the names
    of nodes that stay in float32, safe or not.

    Raises:
        StageFailed: the graph has control flow, whose inner graphs are not converted.
    """
    return _Conversion(load(model), largest, kept, kind).run()


class _Conversion:
    """One pass over the graph; ``types`` holds the element type that each tensor has so far."""

    def __init__(self, model: ModelProto, largest: Mapping[str, float], kept: Collection[str], kind: HalfKind) -> None:
        self._model, self._kind, self._half = model, kind, ELEMENTS[kind]
        self._end, self._smallest = ENDS[kind]
        self._index = Index(model)
        self._opset = opset(model)
        self._largest = largest
        self._kept = set(kept)
        self._info = infer(model)
        self._types = {name: info.dtype for name, info in self._info.items()}
        self._ends = {value.name for value in model.graph.output}
        self._nodes: list[NodeProto] = []
        self._made: set[str] = set()
        self._wanted: dict[str, int] = {}

    def run(self) -> ModelProto:
        graph = self._model.graph
        self._wanted = {node.output[0]: self._type_of(node) for node in graph.node}
        # A second look, once all are chosen: what a convolution or a DequantizeLinear gives is for its readers.
        for node in graph.node:
            if node.op_type == "Conv" and self._is_summed_in_float(node):
                self._wanted[node.output[0]] = FLOAT
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and self._wanted[node.output[0]] == self._half:
                self._wanted[node.output[0]] = self._type_of_readers(node)
        for node in list(graph.node):
            self._convert(node, self._follow(node))
        # Outputs keep their names and their type: a device asks for float32 whatever the inside computes in.
        for name in self._ends:
            if self._types[name] == self._half:
                self._nodes.append(
                    helper.make_node("Cast", [f"{name}/{self._kind}"], [name], name=f"{name}/Cast", to=FLOAT)
                )
        del graph.node[:]
        graph.node.extend(self._nodes)
        return tidy(self._model)

    def _type_of(self, node: NodeProto) -> int:
        """What the node computes in, looked at alone."""
        if any(item.HasField("g") for item in node.attribute):
            raise StageFailed(
                f"{node.op_type} (node {node.name!r}) holds a graph of its own, which is not converted to FP16; "
                "set quantize.precision or quantize.elsewhere to 'fp32'"
            )
        tensors = [name for name in [*node.input, *node.output] if name and self._is_float(name)]
        # Not only what overflowed on the calibration images: others come nearer to the end of the range.
        near = self._reach(node) > self._end or any(self._nears_end(name) for name in tensors)
        unfit = node.op_type not in QDQ and any(self._unfit(name) for name in node.input)
        # Only the first input decides: sizes, scales and axes beside it may be of a type of their own.
        allowed = self._allows(node.output, self._schema(node).outputs, 0) and all(
            self._allows(node.input, self._schema(node).inputs, i) or i > 0 for i in range(len(node.input))
        )
        unsafe = node.op_type in IN_FLOAT or near or unfit or not allowed
        return FLOAT if unsafe or node.name in self._kept else self._half

    def _nears_end(self, name: str) -> bool:
        """Whether half precision may not hold the tensor."""
        dequantize = self._index.made_by(name, "DequantizeLinear")
        if dequantize is not None:
            return self._reach(dequantize) > self._end
        return self._largest.get(name, 0.0) * HEADROOM > self._end

    def _reach(self, node: NodeProto) -> float:
        """The largest magnitude that a quantizer with constant scales tells from others; 0 for any other node."""
        if node.op_type not in QDQ or node.input[1] not in self._index.initializers:
            return 0.0
        zero = self._index.initializers.get(node.input[2]) if len(node.input) > 2 else None
        steps = FP8_STEPS if zero is not None and zero.data_type == TensorProto.FLOAT8E4M3FN else STEPS
        return steps * float(np.abs(self._index.array(node.input[1]).astype(np.float32)).max(initial=0))

    def _follow(self, node: NodeProto) -> int:
        """As chosen, but a quantizer takes its input as it comes: the integers are nearer to the float32 ones."""
        if node.op_type == "QuantizeLinear" and self._types[node.input[0]] == FLOAT:
            return FLOAT
        return self._wanted[node.output[0]]

    def _is_summed_in_float(self, node: NodeProto) -> bool:
        """Whether only residual sums in float32 read the node: a cast between would keep them from being fused."""
        readers = self._index.readers(node.output[0])
        return bool(readers) and all(
            reader.op_type == "Add"
            and self._wanted[reader.output[0]] == FLOAT
            and any(self._index.made_by(name, "DequantizeLinear") for name in reader.input)
            for reader in readers
        )

    def _type_of_readers(self, node: NodeProto) -> int:
        """Half, unless all readers are in float32: a cast between would keep the two from being fused."""
        readers = self._index.readers(node.output[0])
        return FLOAT if readers and all(self._wanted[r.output[0]] == FLOAT for r in readers) else self._half

    def _unfit(self, name: str) -> bool:
        """Whether a constant is too large for half precision, or a single number too small for it: an epsilon."""
        if name not in self._index.initializers or not self._is_float(name):
            return False
        values = np.abs(self._index.array(name).astype(np.float32))
        magnitude = float(values.max(initial=0))
        return magnitude > self._end or (values.size == 1 and 0 < magnitude < self._smallest)

    def _convert(self, node: NodeProto, wanted: int) -> None:
        formal = self._schema(node).inputs
        for i, name in enumerate(node.input):
            if name and self._original(name) == FLOAT:
                node.input[i] = self._in_type(name, wanted if self._allows(node.input, formal, i) else FLOAT)
        # The graph's own cast to float32 (of the pixels, say) becomes one to half precision, and is not cast once more.
        if node.op_type == "Cast" and attribute(node, "to") == FLOAT and wanted == self._half:
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("to", self._half))
        for i, name in enumerate(node.output):
            if name and self._original(name) == FLOAT and wanted == self._half:
                self._types[name] = self._half if self._allows(node.output, self._schema(node).outputs, i) else FLOAT
                node.output[i] = f"{name}/{self._kind}" if name in self._ends else name
        self._nodes.append(node)

    def _in_type(self, name: str, wanted: int) -> str:
        """The tensor's name in the type wanted; a constant is stored again, anything else is cast once."""
        if name in self._index.initializers:
            return self._constant(name) if wanted == self._half else name
        current = f"{name}/{self._kind}" if name in self._ends and self._types[name] == self._half else name
        if self._types[name] == wanted:
            return current
        cast = f"{name}/{self._kind if wanted == self._half else 'fp32'}"
        if cast not in self._made:
            self._made.add(cast)
            self._nodes.append(helper.make_node("Cast", [current], [cast], name=f"{cast}/Cast", to=wanted))
        return cast

    def _constant(self, name: str) -> str:
        half = f"{name}/{self._kind}"
        if half not in self._made:
            self._made.add(half)
            values = self._index.array(name).astype(helper.tensor_dtype_to_np_dtype(self._half))
            self._model.graph.initializer.append(numpy_helper.from_array(values, half))
        return half

    def _is_float(self, name: str) -> bool:
        return name in self._info and self._info[name].dtype == FLOAT

    def _original(self, name: str) -> int:
        return self._info[name].dtype if name in self._info else 0

    def _schema(self, node: NodeProto) -> defs.OpSchema:
        return defs.get_schema(node.op_type, self._opset, node.domain)

    def _allows(self, names: Sequence[str], formal: Sequence[defs.OpSchema.FormalParameter], position: int) -> bool:
        """Whether the operator takes, or gives, half precision there; true for what is no float32 tensor."""
        if position >= len(names) or self._original(names[position]) != FLOAT:
            return True
        parameter = formal[min(position, len(formal) - 1)]  # the last one stands for any number
        return f"tensor({TensorProto.DataType.Name(self._half).lower()})" in parameter.types
