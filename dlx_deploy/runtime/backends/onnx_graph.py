"""Nodes and tensors of an ONNX graph, read from protobuf and written again, where no ``onnx`` package is."""

from __future__ import annotations

import math
from typing import List, Optional, Sequence

import numpy as np

from ..package.protobuf import BYTES, VARINT, Data, Field, Malformed, read_message, read_numbers, write_message
from ..untyped import Array

__all__ = [
    "FLOAT",
    "GRAPH",
    "HALF",
    "HALVES",
    "INITIALIZER",
    "INT4",
    "INT32",
    "NODE",
    "OUTPUT",
    "VALUE_INFO",
    "Node",
    "as_bytes",
    "end_name",
    "float32_tensor",
    "int4_array",
    "make_node",
    "make_tensor",
    "tensor_array",
    "tensor_name",
    "tensor_shape",
    "tensor_type",
]

FLOAT, INT8, INT32, HALF, BFLOAT16, INT4 = 1, 3, 6, 10, 16, 22
"""Of TensorProto.DataType."""
HALVES = (HALF, BFLOAT16)
# Field numbers of onnx.proto.
GRAPH = 7
NODE, INITIALIZER, OUTPUT, VALUE_INFO = 1, 5, 12, 13
END_NAME = 1
IN, OUT, NAME, OPERATOR, ATTRIBUTE = 1, 2, 3, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPHS, ATTRIBUTE_TYPE = (
    1,
    2,
    3,
    5,
    (6, 11),
    20,
)
TYPE_INT = 2
DIMS, DATA_TYPE, FLOAT_DATA, INT32_DATA, TENSOR_NAME, RAW_DATA = 1, 2, 4, 5, 8, 9
DTYPES = {FLOAT: "<f4", INT8: "i1", HALF: "<f2"}


class Node:
    """One node, read; a field that is not understood is kept as it is."""

    def __init__(self, data: Data) -> None:
        self.fields = read_message(data)
        self.inputs, self.outputs = _strings(self.fields, IN), _strings(self.fields, OUT)
        self.operator = _string(self.fields, OPERATOR)
        self._attributes = [read_message(as_bytes(field)) for field in self.fields if field[0] == ATTRIBUTE]

    @property
    def has_graph(self) -> bool:
        """Whether the node holds a graph of its own: control flow."""
        return any(field[0] in ATTRIBUTE_GRAPHS for attribute in self._attributes for field in attribute)

    def integer(self, name: str, default: int) -> int:
        """The value of an integer attribute, or ``default`` where it is not set."""
        values = [_number(a, ATTRIBUTE_INT) or 0 for a in self._attributes if _string(a, ATTRIBUTE_NAME) == name]
        return _signed(values[0]) if values else default

    def number(self, name: str, default: float) -> float:
        """The value of a floating-point attribute, or ``default`` where it is not set."""
        values = [
            f for a in self._attributes if _string(a, ATTRIBUTE_NAME) == name for f in a if f[0] == ATTRIBUTE_FLOAT
        ]
        return float(np.frombuffer(as_bytes(values[-1]), "<f4")[0]) if values else default

    def tensor_types(self) -> List[int]:
        """The element types of the tensors in its attributes."""
        tensors = [field for a in self._attributes for field in a if _is_tensor(field)]
        return [tensor_type(read_message(as_bytes(tensor))) for tensor in tensors]

    def with_float32_tensors(self) -> Node:
        """The same node, float16 tensors in its attributes as float32."""
        others = [field for field in self.fields if field[0] != ATTRIBUTE]
        return Node(write_message([*others, *((ATTRIBUTE, BYTES, _float32_attribute(a)) for a in self._attributes)]))

    def renamed(self, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        """The node as bytes, with these inputs and outputs."""
        others = [field for field in self.fields if field[0] not in (IN, OUT)]
        return write_message([*_ends(inputs, outputs), *others])


def make_node(operator: str, inputs: Sequence[str], output: str, **integers: int) -> bytes:
    """A new node with integer attributes, as bytes."""
    attributes = [
        write_message(
            [(ATTRIBUTE_NAME, BYTES, _encoded(k)), (ATTRIBUTE_INT, VARINT, v), (ATTRIBUTE_TYPE, VARINT, TYPE_INT)]
        )
        for k, v in integers.items()
    ]
    kind: List[Field] = [(NAME, BYTES, _encoded(f"{output}/{operator}")), (OPERATOR, BYTES, _encoded(operator))]
    return write_message([*_ends(inputs, [output]), *kind, *((ATTRIBUTE, BYTES, a) for a in attributes)])


def make_tensor(name: str, values: Array) -> bytes:
    """An initializer of float32 ``values`` as bytes."""
    array = np.asarray(values, "<f4")
    dims: List[Field] = [(DIMS, VARINT, size) for size in array.shape]
    kind: List[Field] = [(DATA_TYPE, VARINT, FLOAT), (TENSOR_NAME, BYTES, _encoded(name))]
    return write_message([*dims, *kind, (RAW_DATA, BYTES, array.tobytes())])


def tensor_name(tensor: Sequence[Field]) -> str:
    """The tensor's name."""
    return _string(tensor, TENSOR_NAME)


def tensor_type(tensor: Sequence[Field]) -> int:
    """Its element type, of TensorProto.DataType."""
    return _number(tensor, DATA_TYPE) or 0


def tensor_shape(tensor: Sequence[Field]) -> List[int]:
    """Its sizes."""
    return [number for field in tensor if field[0] == DIMS for number in read_numbers(field)]


def end_name(data: Data) -> str:
    """The name of a graph's input or output."""
    return _string(read_message(data), END_NAME)


def tensor_array(tensor: Sequence[Field]) -> Optional[Array]:
    """Its values: float32, float16 or int8, in its shape; of any other type ``None``.

    Raises:
        Malformed: there are not as many values as its shape says.
    """
    kind = tensor_type(tensor)
    if kind not in DTYPES:
        return None
    dims = tensor_shape(tensor)
    values = _values(tensor, kind)
    if values.size != math.prod(dims):
        raise Malformed(f"the tensor {tensor_name(tensor)!r} has {values.size} values for the shape {dims}")
    return values.reshape(dims)


def int4_array(tensor: Sequence[Field]) -> Array:
    """The values of a tensor of INT4 in its shape, as int8: -8 to 7, the first of a byte in its lower half.

    Raises:
        Malformed: there are not as many values as its shape says.
    """
    dims = tensor_shape(tensor)
    raw = b"".join(bytes(as_bytes(field)) for field in tensor if field[0] == RAW_DATA)
    if not raw:
        raw = bytes(n & 0xFF for field in tensor if field[0] == INT32_DATA for n in read_numbers(field))
    count = math.prod(dims)  # of any size, where somebody wrote so
    if len(raw) != (count + 1) // 2:
        raise Malformed(f"the tensor {tensor_name(tensor)!r} has {len(raw)} bytes for the shape {dims} of INT4")
    packed = np.frombuffer(raw, np.uint8)
    halves = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:count].astype(np.int8)
    return np.where(halves > 7, halves - 16, halves).astype(np.int8).reshape(dims)


def float32_tensor(tensor: List[Field]) -> bytes:
    """The tensor as bytes; of float16 and bfloat16 the same numbers as float32."""
    kind = tensor_type(tensor)
    if kind not in HALVES:
        return write_message(tensor)
    kept = [field for field in tensor if field[0] not in (DATA_TYPE, RAW_DATA, INT32_DATA)]
    values = (_values(tensor, HALF) if kind == HALF else _bfloat16_values(tensor)).astype("<f4").tobytes()
    return write_message([*kept, (DATA_TYPE, VARINT, FLOAT), (RAW_DATA, BYTES, values)])


def _values(tensor: Sequence[Field], kind: int) -> Array:
    """The values in a row, from ``raw_data`` or else from the field of the type."""
    dtype = np.dtype(DTYPES[kind])
    raw = b"".join(bytes(as_bytes(field)) for field in tensor if field[0] == RAW_DATA)
    if not raw and kind == FLOAT:
        raw = b"".join(bytes(as_bytes(field)) for field in tensor if field[0] == FLOAT_DATA)
    if raw:
        if len(raw) % dtype.itemsize:
            raise Malformed(f"the tensor {tensor_name(tensor)!r} has {len(raw)} bytes of {dtype.itemsize} each")
        return np.frombuffer(raw, dtype)
    numbers = [number for field in tensor if field[0] == INT32_DATA for number in read_numbers(field)]
    if kind == HALF:  # its bits, as numbers
        return np.array([number & 0xFFFF for number in numbers], "<u2").view("<f2")
    return np.array([_signed(number) for number in numbers], dtype)


def _bfloat16_values(tensor: Sequence[Field]) -> Array:
    """Its values as float32: the upper half of each number is stored."""
    raw = b"".join(bytes(as_bytes(field)) for field in tensor if field[0] == RAW_DATA)
    numbers = [n & 0xFFFF for field in tensor if field[0] == INT32_DATA for n in read_numbers(field)]
    if len(raw) % 2:
        raise Malformed(f"the tensor {tensor_name(tensor)!r} has {len(raw)} bytes of 2 each")
    bits = np.frombuffer(raw, "<u2") if raw else np.array(numbers, "<u2")
    return (bits.astype("<u4") << 16).view("<f4")


def _ends(inputs: Sequence[str], outputs: Sequence[str]) -> List[Field]:
    return [*((IN, BYTES, _encoded(name)) for name in inputs), *((OUT, BYTES, _encoded(name)) for name in outputs)]


def _float32_attribute(attribute: List[Field]) -> bytes:
    tensors = ((ATTRIBUTE_TENSOR, BYTES, float32_tensor(read_message(as_bytes(f)))) for f in attribute if _is_tensor(f))
    return write_message([*(field for field in attribute if not _is_tensor(field)), *tensors])


def _is_tensor(field: Field) -> bool:
    return field[0] == ATTRIBUTE_TENSOR


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _number(message: Sequence[Field], number: int) -> Optional[int]:
    """The value of a field that holds one number; the last one counts, as everywhere in protobuf."""
    values = [value for n, _, value in message if n == number and isinstance(value, int)]
    return values[-1] if values else None


def _string(message: Sequence[Field], number: int) -> str:
    return (_strings(message, number) or [""])[-1]


def _strings(message: Sequence[Field], number: int) -> List[str]:
    # Whatever the bytes are, they come back the same.
    return [bytes(as_bytes(field)).decode("utf-8", "surrogateescape") for field in message if field[0] == number]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def as_bytes(field: Field) -> Data:
    """The field's bytes.

    Raises:
        Malformed: it holds a number.
    """
    if isinstance(field[2], int):
        raise Malformed(f"field {field[0]} is a number where a message belongs")
    return field[2]
