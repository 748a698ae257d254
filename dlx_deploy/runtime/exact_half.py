"""The same arithmetic on every ONNX Runtime: a graph in half precision as a float32 one that rounds where it did.

What ONNX Runtime makes of float16 depends on its version and on the CPU. Up to 1.28 its ``QuantizeLinear`` of float16
gives other integers than ONNX asks for, the casts around what it has no kernel for come and go, and an ARM CPU with
float16 sums in it. Of float32 there is one reading. So every float16 tensor becomes float32, and what computes it is
followed by a cast to float16 and back: each operation is done in float32 and its result rounded once. A quantizer then
divides in float32, as TensorRT's kernels do.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Set

import numpy as np

from .errors import PackageError
from .protobuf import BYTES, VARINT, Data, Field, Malformed, read_message, read_numbers, write_message

__all__ = ["FOLLOWS", "OTHER_TYPE", "float32_twin"]

FLOAT, HALF = 1, 10  # of TensorProto.DataType
# Field numbers of onnx.proto.
GRAPH = 7
NODE, INITIALIZER, VALUE_INFO = 1, 5, 13
IN, OUT, NAME, OPERATOR, ATTRIBUTE = 1, 2, 3, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPHS, ATTRIBUTE_TYPE = 1, 3, 5, (6, 11), 20
TYPE_INT = 2
DATA_TYPE, INT32_DATA, TENSOR_NAME, RAW_DATA = 2, 5, 8, 9

FOLLOWS: Dict[str, int] = {"CastLike": 1, "DequantizeLinear": 1, "OneHot": 2, "RMSNormalization": 1, "Where": 1}
"""Operator → the input whose element type its outputs have; of all others the first."""
OTHER_TYPE: Dict[str, int] = {
    **dict.fromkeys(("And", "ArgMax", "ArgMin", "DynamicQuantizeLinear", "Equal", "Greater", "GreaterOrEqual"), 0),
    **dict.fromkeys(("IsInf", "IsNaN", "Less", "LessOrEqual", "Multinomial", "NonZero", "Not", "Or", "Xor"), 0),
    **dict.fromkeys(("QuantizeLinear", "Shape", "Size"), 0),
    **dict.fromkeys(("Dropout", "LayerNormalization", "MaxPool", "TopK", "Unique"), 1),
}
"""Operator → the first of its outputs that has a type of its own, whatever the inputs are."""
CONSTANTS = ("Constant", "ConstantOfShape")
KEEPS = frozenset(
    (
        *("Abs", "Clip", "Concat", *CONSTANTS, "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather"),
        *("GlobalMaxPool", "Identity", "Max", "MaxPool", "Min", "Neg", "Pad", "ReduceMax", "ReduceMin", "Relu"),
        *("Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze", "Where"),
    )
)
"""Operators that move or choose numbers: of float16 numbers they make float16 numbers, so there is nothing to round."""


def float32_twin(model: bytes) -> bytes:
    """``model`` (ONNX) without float16: float32 instead, rounded to float16 wherever it was; the same if it has none.

    Raises:
        PackageError: the bytes are no ONNX model, or one whose inner graphs (control flow) lie among float16.
    """
    try:
        fields = read_message(model)
        graphs = [_Graph(_bytes(field)) for field in fields if field[0] == GRAPH]
        if not any(graph.has_half for graph in graphs):
            return model
        twins = iter([graph.twin() for graph in graphs])
        return write_message((GRAPH, BYTES, next(twins)) if field[0] == GRAPH else field for field in fields)
    except Malformed as e:
        raise PackageError(f"the model is no ONNX model ({e}); copy or build the package again") from e


class _Graph:
    """One graph, read; ``half`` names the tensors that are float16 in it."""

    def __init__(self, data: Data) -> None:
        self._fields = read_message(data)
        self.half: Set[str] = set()
        for field in self._fields:
            if field[0] == INITIALIZER and _number(read_message(_bytes(field)), DATA_TYPE) == HALF:
                self.half.add(_string(read_message(_bytes(field)), TENSOR_NAME))
        self._nodes = [_Node(_bytes(field)) for field in self._fields if field[0] == NODE]
        for node in self._nodes:
            self.half.update(node.half_outputs(self.half))

    @property
    def has_half(self) -> bool:
        return bool(self.half)

    def twin(self) -> bytes:
        """The graph in float32. Inferred types (``value_info``) are left out: they would say float16."""
        nodes, done = iter(self._nodes), self._fields[:0]
        for number, wire, value in self._fields:
            if number == NODE:
                done += [(NODE, BYTES, node) for node in next(nodes).twin(self.half)]
            elif number == INITIALIZER:
                done.append((number, wire, _float32(read_message(_bytes((number, wire, value))))))
            elif number != VALUE_INFO:
                done.append((number, wire, value))
        return write_message(done)


class _Node:
    """One node, read."""

    def __init__(self, data: Data) -> None:
        self._fields = read_message(data)
        self.inputs, self.outputs = _strings(self._fields, IN), _strings(self._fields, OUT)
        self.operator = _string(self._fields, OPERATOR)
        self._attributes = [read_message(_bytes(field)) for field in self._fields if field[0] == ATTRIBUTE]

    def half_outputs(self, half: Set[str]) -> List[str]:
        """Which of the outputs are float16 if those in ``half`` are."""
        if any(field[0] in ATTRIBUTE_GRAPHS for attribute in self._attributes for field in attribute):
            if half:
                raise PackageError(
                    f"the model's {self.operator} holds a graph of its own, beside float16: build it again"
                )
            return []
        if self.operator == "Cast":
            return self.outputs if self._cast_to() == HALF else []
        if self.operator in CONSTANTS:
            return self.outputs if HALF in self._tensor_types() else []
        source = FOLLOWS.get(self.operator, 0)
        if len(self.inputs) <= source or self.inputs[source] not in half:
            return []
        return [name for name in self.outputs[: OTHER_TYPE.get(self.operator)] if name]

    def twin(self, half: Set[str]) -> List[bytes]:
        """The node in float32, and for each float16 output that it computes a cast to float16 and back."""
        rounded = [name for name in self.outputs if name in half and self.operator not in KEEPS]
        if self.operator == "Cast" and rounded:
            return _round(self.inputs[0], rounded[0])
        new_names = {name: f"{name}/unrounded" for name in rounded}
        fields = self._with_float_tensors() if self.operator in CONSTANTS else self._fields
        node = write_message(_renamed(field, new_names) for field in fields)
        return [node, *(cast for name in rounded for cast in _round(new_names[name], name))]

    def _cast_to(self) -> Optional[int]:
        return next((_number(a, ATTRIBUTE_INT) for a in self._attributes if _string(a, ATTRIBUTE_NAME) == "to"), None)

    def _tensor_types(self) -> List[Optional[int]]:
        tensors = [field for a in self._attributes for field in a if field[0] == ATTRIBUTE_TENSOR]
        return [_number(read_message(_bytes(tensor)), DATA_TYPE) for tensor in tensors]

    def _with_float_tensors(self) -> List[Field]:
        others = [field for field in self._fields if field[0] != ATTRIBUTE]
        return [*others, *((ATTRIBUTE, BYTES, _float32_attribute(attribute)) for attribute in self._attributes)]


def _round(source: str, target: str) -> List[bytes]:
    """Two nodes that make float32 ``target`` of ``source`` by way of float16."""
    return [_cast(source, f"{target}/half", HALF), _cast(f"{target}/half", target, FLOAT)]


def _cast(source: str, target: str, to: int) -> bytes:
    attribute: List[Field] = [
        (ATTRIBUTE_NAME, BYTES, b"to"),
        (ATTRIBUTE_INT, VARINT, to),
        (ATTRIBUTE_TYPE, VARINT, TYPE_INT),
    ]
    fields: List[Field] = [
        (IN, BYTES, _encoded(source)),
        (OUT, BYTES, _encoded(target)),
        (NAME, BYTES, _encoded(f"{target}/Cast")),
        (OPERATOR, BYTES, b"Cast"),
        (ATTRIBUTE, BYTES, write_message(attribute)),
    ]
    return write_message(fields)


def _float32_attribute(attribute: List[Field]) -> bytes:
    tensors = ((ATTRIBUTE_TENSOR, BYTES, _float32(read_message(_bytes(f)))) for f in attribute if _is_tensor(f))
    return write_message([*(field for field in attribute if not _is_tensor(field)), *tensors])


def _is_tensor(field: Field) -> bool:
    return field[0] == ATTRIBUTE_TENSOR


def _float32(tensor: List[Field]) -> bytes:
    """The tensor as bytes; of float16 the same numbers as float32, in ``raw_data``."""
    if _number(tensor, DATA_TYPE) != HALF:
        return write_message(tensor)
    raw = b"".join(bytes(_bytes(field)) for field in tensor if field[0] == RAW_DATA)
    bits = [number for field in tensor if field[0] == INT32_DATA for number in read_numbers(field)]
    if len(raw) % 2 or any(number > 0xFFFF for number in bits):
        raise Malformed(f"the float16 tensor {_string(tensor, TENSOR_NAME)!r} holds what is no float16")
    halves = np.frombuffer(raw, "<f2") if raw else np.asarray(bits, "<u2").view("<f2")
    kept = [field for field in tensor if field[0] not in (DATA_TYPE, RAW_DATA, INT32_DATA)]
    return write_message([*kept, (DATA_TYPE, VARINT, FLOAT), (RAW_DATA, BYTES, halves.astype("<f4").tobytes())])


def _renamed(field: Field, names: Dict[str, str]) -> Field:
    """The field of a node, an output in ``names`` by its new name."""
    if field[0] != OUT:
        return field
    name = _text(field)
    return (OUT, BYTES, _encoded(names.get(name, name)))


def _number(message: Sequence[Field], number: int) -> Optional[int]:
    """The value of a field that holds one number; the last one counts, as everywhere in protobuf."""
    values = [value for n, _, value in message if n == number and isinstance(value, int)]
    return values[-1] if values else None


def _string(message: Sequence[Field], number: int) -> str:
    return (_strings(message, number) or [""])[-1]


def _strings(message: Sequence[Field], number: int) -> List[str]:
    return [_text(field) for field in message if field[0] == number]


def _text(field: Field) -> str:
    return bytes(_bytes(field)).decode("utf-8", "surrogateescape")  # whatever the bytes are, they come back the same


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _bytes(field: Field) -> Data:
    if isinstance(field[2], int):
        raise Malformed(f"field {field[0]} is a number where a message belongs")
    return field[2]
