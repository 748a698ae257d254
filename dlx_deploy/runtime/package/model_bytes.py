"""Whether an ONNX model is whole: all of its weights in its own bytes, and nothing in it that opens a file.

ONNX lets a tensor live in another file ("external data"). A model that is given as bytes has no folder, so ONNX Runtime
would look for that file in the working folder: the same package would then answer differently from folder to folder.
The bytes are walked as protobuf, along the fields through which a tensor or a node can be reached, without a library.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, Set, Tuple

from ..errors import PackageError
from .protobuf import BYTES, FIXED32, FIXED64, VARINT, Malformed

__all__ = ["MAX_BYTES", "check_model_bytes"]

MAX_DEPTH = 100  # of messages inside messages: protobuf's own limit
MAX_FIELDS = 2_000_000  # a network of a thousand layers has about 50,000
MAX_BYTES = 2**31 - 1  # protobuf's own limit for one message
ORT_FORMAT = b"ORTM"  # the file identifier of ONNX Runtime's own format, at offset 4

CHILDREN: Dict[str, Dict[int, str]] = {
    "model": {7: "graph", 14: "property", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "property": {},
}
"""Message → field number → message, of onnx.proto: every way from a model to a tensor or a node."""
NODE_OPERATOR, NODE_DOMAIN, FUNCTION_DOMAIN, PROPERTY_KEY = 4, 7, 10, 1
TENSOR_NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14
READ = {"node": (NODE_OPERATOR, NODE_DOMAIN), "function": (FUNCTION_DOMAIN,), "property": (PROPERTY_KEY,)}
"""Message → the strings in it that are looked at."""
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Whose operators ONNX Runtime has itself; those of others come from a library that somebody has to load."""
FILE_OPERATORS = ("EPContext", "PythonOp", "ATen")
"""Operators that run what is in another file or in another program: a compiled engine, Python, PyTorch."""
CONFIG = b"ort_config"
"""A property from which ONNX Runtime takes session options, profiles written to files among them, if asked to."""


def check_model_bytes(model: bytes, origin: str) -> None:
    """Refuses a model that is not all in ``model``; ``origin`` names it in messages.

    Raises:
        PackageError: a tensor with external data, an operator that opens files or comes from elsewhere, ONNX Runtime's
            own format instead of ONNX, or bytes that are no ONNX model.
    """
    if len(model) > MAX_BYTES:
        raise PackageError(f"{origin}: the model has {len(model)} bytes; one ONNX model has at most {MAX_BYTES}")
    if model[4:8] == ORT_FORMAT:
        raise PackageError(f"{origin}: the model is in ONNX Runtime's own format (.ort); must be ONNX (.onnx)")
    try:
        _walk(memoryview(model), origin)
    except Malformed as e:
        raise PackageError(
            f"{origin}: ONNX Runtime itself cannot load the model: it is no ONNX model ({e}); copy or build it again"
        ) from e


def _walk(model: memoryview, origin: str) -> None:
    """Every message on the way to a tensor or a node; a stack instead of recursion, so that depth costs nothing."""
    stack: List[Tuple[str, int, int, int]] = [("model", 0, len(model), 1)]
    domains: Set[bytes] = set()
    functions: Set[bytes] = set()
    count = 0
    while stack:
        kind, start, end, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise Malformed(f"messages are nested more than {MAX_DEPTH} deep")
        children, wanted = CHILDREN[kind], READ.get(kind, ())
        strings: Dict[int, bytes] = {}
        for field, wire, first, last in _fields(model, start, end):
            count += 1
            if count > MAX_FIELDS:
                raise Malformed(f"more than {MAX_FIELDS} fields")
            if field in children:
                if wire != BYTES:
                    raise Malformed(f"field {field} of a {kind} has wire type {wire}")
                stack.append((children[field], first, last, depth + 1))
            elif field in wanted and wire == BYTES:
                strings[field] = bytes(model[first:last])
            elif kind == "tensor" and (field == EXTERNAL_DATA or (field == DATA_LOCATION and first != last)):
                raise PackageError(f"{origin}: {_external(model, start, end)}")
        if kind == "node":
            domains.add(strings.get(NODE_DOMAIN, b""))
            _check_operator(_text(strings.get(NODE_OPERATOR, b"")), origin)
        elif kind == "function":
            functions.add(strings.get(FUNCTION_DOMAIN, b""))
        elif strings.get(PROPERTY_KEY) == CONFIG:
            raise PackageError(
                f"{origin}: the model has the property {_text(CONFIG)!r}, session options; export it without"
            )
    _check_domains({_text(domain) for domain in domains - functions}, origin)


def _fields(model: memoryview, position: int, end: int) -> Iterator[Tuple[int, int, int, int]]:
    """(number, wire type, first, last) of each field: its bytes are ``model[first:last]``.

    Of a number no bytes are given: ``first`` and ``last`` are the same if and only if it is 0.
    """
    while position < end:
        tag = model[position]
        if tag < 0x80:  # most are of one byte; this is the path of every start
            position += 1
        else:
            tag, position = _varint(model, position, end, 5)
        field, wire = (tag & 0xFFFFFFFF) >> 3, tag & 7
        if not field:
            raise Malformed("field number 0")
        if wire == VARINT:
            value, position = _varint(model, position, end, 10)
            yield field, wire, position, position + (value != 0)
            continue
        if wire == BYTES:
            if position < end and model[position] < 0x80:
                size, position = model[position], position + 1
            else:
                size, position = _varint(model, position, end, 5)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise Malformed(f"wire type {wire}")
        if size > end - position:
            raise Malformed("cut short")
        yield field, wire, position, position + size
        position += size


def _varint(model: memoryview, position: int, end: int, longest: int) -> Tuple[int, int]:
    """The number at ``position`` of at most ``longest`` bytes, and where it ends."""
    value = 0
    for i in range(min(longest, end - position)):
        byte = model[position + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, position + i + 1
    raise Malformed("cut short" if end - position < longest else f"a number of more than {longest} bytes")


def _external(model: memoryview, start: int, end: int) -> str:
    """What is wrong with the tensor between ``start`` and ``end``: its name, and the file that it names."""
    name, entries = b"", []
    for field, wire, first, last in _fields(model, start, end):
        if wire == BYTES and field == TENSOR_NAME:
            name = bytes(model[first:last])
        elif wire == BYTES and field == EXTERNAL_DATA:
            pair = {f: bytes(model[a:b]) for f, w, a, b in _fields(model, first, last) if w == BYTES}
            entries += [pair.get(2, b"")] if pair.get(1) == b"location" else []
    where = f"in the file {_text(entries[-1])!r}" if entries else "outside the model"
    return (
        f"the weights {_text(name)!r} are {where}, which a package does not hold; all weights must be in the model: "
        "save it in one file (onnx.save_model with save_as_external_data=False) and build again"
    )


def _check_operator(operator: str, origin: str) -> None:
    if operator in FILE_OPERATORS:
        raise PackageError(
            f"{origin}: the model has a node of type {operator}, which runs what is not in the model; export it without"
        )


def _check_domains(domains: Set[str], origin: str) -> None:
    unknown = sorted(domains - set(DOMAINS))
    if unknown:
        raise PackageError(
            f"{origin}: the model has operators of {', '.join(map(repr, unknown))}, which ONNX Runtime does not have; "
            f"allowed: {', '.join(filter(None, DOMAINS))}, and functions that the model itself defines"
        )


def _text(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace")
