"""A small summary of a graph: which operators it has, of which operator set, on which types; no onnx, no numpy."""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from ..errors import PackageError
from ..package.protobuf import Data, Field, Malformed, read_message
from ..records import record, replace

__all__ = ["DTYPES", "Operator", "in_exact", "in_half", "list_operators"]

# Field numbers of onnx.proto.
OPSETS, GRAPH = 8, 7
DOMAIN, VERSION = 1, 2  # of an opset
NODE, INITIALIZER, INPUT = 1, 5, 11
IN, OUT, OPERATOR, ATTRIBUTE, NODE_DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_STRING, ATTRIBUTE_TENSOR, GRAPHS = 1, 3, 4, 5, (6, 11)
DATA_TYPE, TENSOR_NAME = 2, 8
END_NAME, END_TYPE, TENSOR_TYPE, ELEMENT = 1, 2, 1, 1
DTYPES: Dict[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
    17: "float8e4m3fn",
    21: "uint4",
    22: "int4",
}
"""Of TensorProto.DataType; another type is ``""``: nothing is said of it."""
GIVES = {
    **dict.fromkeys(("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN"), "bool"),
    **dict.fromkeys(("Less", "LessOrEqual", "Not", "Or", "Xor"), "bool"),
    **dict.fromkeys(("ArgMax", "ArgMin", "NonZero", "Shape", "Size"), "int64"),
    **dict.fromkeys(("ConvInteger", "MatMulInteger"), "int32"),
    "DynamicQuantizeLinear": "uint8",
}
"""Operator → the type of its first output, whatever it reads."""
GIVEN_BY = {"CastLike": 1, "DequantizeLinear": 1, "OneHot": 2, "QuantizeLinear": 2, "Where": 1}
"""Operator → the input whose type its first output has; of all others the first."""


@record
class Operator:
    """One operator as a graph has it, ``count`` times.

    ``opset``: the version of its ``domain`` (``""``: ONNX's own). ``dtype``: the element type of its first input, and
    ``gives`` of its first output, as ``float16``; ``""`` where that does not show. ``attributes``: the names of those
    that are set, of text as ``mode=linear``.
    """

    type: str
    opset: int
    dtype: str
    gives: str
    attributes: Tuple[str, ...] = ()
    domain: str = ""
    count: int = 1


def list_operators(model: bytes) -> Tuple[Operator, ...]:
    """Every different operator of ``model`` (ONNX), control flow's own graphs included, in the graph's order.

    Raises:
        PackageError: the bytes are no ONNX model.
    """
    try:
        fields = read_message(model)
        opsets = dict(_opset(_message(field)) for field in fields if field[0] == OPSETS)
        seen: Dict[Operator, int] = {}
        for field in fields:
            for found in _Graph(opsets, {}).operators(_message(field)) if field[0] == GRAPH else ():
                seen[found] = seen.get(found, 0) + 1
    except (Malformed, RecursionError) as e:
        raise PackageError(f"the model is no ONNX model ({e}); copy or build the package again") from e
    return tuple(replace(operator, count=count) for operator, count in seen.items())


def in_exact(operators: Iterable[Operator]) -> Tuple[Operator, ...]:
    """The same in exact arithmetic, where every float16 is a float32 that was rounded (``backends/exact``)."""
    return _retyped(_retyped(operators, "float16", "float32"), "bfloat16", "float32")


def in_half(operators: Iterable[Operator]) -> Tuple[Operator, ...]:
    """The same where a builder may choose FP16 for what the graph has in float32."""
    return _retyped(operators, "float32", "float16")


def _retyped(operators: Iterable[Operator], old: str, new: str) -> Tuple[Operator, ...]:
    return tuple(
        replace(one, dtype=new if one.dtype == old else one.dtype, gives=new if one.gives == old else one.gives)
        for one in operators
    )


class _Graph:
    """One graph while it is read; ``types``: the element type of every tensor so far, those around it included."""

    def __init__(self, opsets: Dict[str, int], types: Dict[str, str]) -> None:
        self._opsets, self._types = opsets, types

    def operators(self, fields: Sequence[Field]) -> Iterator[Operator]:
        """Every node's operator, in order."""
        for field in fields:
            if field[0] == INITIALIZER:
                tensor = _message(field)
                self._types[_text(tensor, TENSOR_NAME)] = DTYPES.get(_number(tensor, DATA_TYPE), "")
            elif field[0] == INPUT:
                end = _message(field)
                self._types[_text(end, END_NAME)] = _end_type(end)
        for field in fields:
            if field[0] == NODE:
                yield from self._node(_message(field))

    def _node(self, node: Sequence[Field]) -> Iterator[Operator]:
        attributes = [_message(field) for field in node if field[0] == ATTRIBUTE]
        inputs, outputs = _texts(node, IN), _texts(node, OUT)
        kind, domain = _text(node, OPERATOR), _text(node, NODE_DOMAIN)
        gives = self._gives(kind, inputs, attributes)
        for name in outputs[:1]:
            self._types[name] = gives
        yield Operator(
            type=kind,
            opset=self._opsets.get("" if domain == "ai.onnx" else domain, 0),
            dtype=self._types.get(inputs[0], "") if inputs else "",
            gives=gives,
            attributes=tuple(sorted(map(_described, attributes))),
            domain="" if domain == "ai.onnx" else domain,
        )
        for attribute in attributes:
            for field in attribute:
                if field[0] in GRAPHS and not isinstance(field[2], int):
                    yield from _Graph(self._opsets, dict(self._types)).operators(_message(field))

    def _gives(self, kind: str, inputs: Sequence[str], attributes: Sequence[Sequence[Field]]) -> str:
        """The type of the first output; ``""`` where it does not show."""
        asked = _asked_type(kind, attributes)
        if asked is not None:
            return asked
        if kind in GIVES:
            return GIVES[kind]
        place = GIVEN_BY.get(kind, 0)
        if place < len(inputs) and inputs[place]:
            return self._types.get(inputs[place], "")
        return "uint8" if kind == "QuantizeLinear" else ""


def _asked_type(kind: str, attributes: Sequence[Sequence[Field]]) -> Optional[str]:
    """The type that an attribute asks for, of a cast, a constant or a quantizer."""
    for attribute in attributes:
        name = _text(attribute, ATTRIBUTE_NAME)
        if (kind, name) == ("Cast", "to") or (name in ("output_dtype", "dtype") and _number(attribute, ATTRIBUTE_INT)):
            return DTYPES.get(_number(attribute, ATTRIBUTE_INT), "")
        if kind in ("Constant", "ConstantOfShape"):
            for field in attribute:
                if field[0] == ATTRIBUTE_TENSOR:
                    return DTYPES.get(_number(_message(field), DATA_TYPE), "")
    return "float32" if kind == "ConstantOfShape" else None


def _described(attribute: Sequence[Field]) -> str:
    name, text = _text(attribute, ATTRIBUTE_NAME), _text(attribute, ATTRIBUTE_STRING)
    return f"{name}={text}" if text else name


def _opset(fields: Sequence[Field]) -> Tuple[str, int]:
    domain = _text(fields, DOMAIN)
    return "" if domain == "ai.onnx" else domain, _number(fields, VERSION)


def _end_type(end: Sequence[Field]) -> str:
    for field in end:
        if field[0] == END_TYPE:
            for kind in _message(field):
                if kind[0] == TENSOR_TYPE:
                    return DTYPES.get(_number(_message(kind), ELEMENT), "")
    return ""


def _message(field: Field) -> List[Field]:
    return read_message(_bytes(field))


def _bytes(field: Field) -> Data:
    if isinstance(field[2], int):
        raise Malformed(f"field {field[0]} is a number where bytes belong")
    return field[2]


def _number(fields: Sequence[Field], number: int) -> int:
    values = [value for n, _, value in fields if n == number and isinstance(value, int)]
    return values[-1] if values else 0


def _texts(fields: Sequence[Field], number: int) -> List[str]:
    return [bytes(_bytes(field)).decode("utf-8", "replace") for field in fields if field[0] == number]


def _text(fields: Sequence[Field], number: int) -> str:
    return (_texts(fields, number) or [""])[-1]
