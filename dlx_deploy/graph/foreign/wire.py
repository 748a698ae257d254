"""What an ONNX file says of itself, without onnx: for a plan, which must take milliseconds.

ONNX is a protobuf message (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); the field numbers below are its.
Weights are stepped over, never read.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.files import open_file
from dlx_deploy.runtime.hazards.operators import DTYPES
from dlx_deploy.runtime.package.protobuf import Malformed, read_message

__all__ = [
    "BFLOAT16",
    "DOUBLE",
    "FLOAT",
    "FLOAT16",
    "STRING",
    "TYPES",
    "UINT8",
    "OnnxFacts",
    "Value",
    "facts_in",
    "read_facts",
]

FLOAT, UINT8, STRING, FLOAT16, DOUBLE, BFLOAT16 = 1, 2, 8, 10, 11, 16
TYPES = {**DTYPES, STRING: "string"}
"""TensorProto.DataType → its name."""
_DEEPEST = 16
"""Graphs within graphs: no model nests so many, and a file that does is there to exhaust the stack."""


@dataclass(frozen=True)
class Value:
    """An input or output. ``dims``: a number, or ``None`` where any will do; ``None`` in place of all: not said.

    ``type``: as in ``TYPES``; 0 where it is no tensor.
    """

    name: str
    type: int
    dims: tuple[int | None, ...] | None

    def __str__(self) -> str:
        dims = "?" if self.dims is None else ", ".join("N" if d is None else str(d) for d in self.dims)
        return f"{self.name} {TYPES.get(self.type, 'no tensor')}[{dims}]"


@dataclass
class OnnxFacts:
    """``ir``: the version of the file's format. ``inputs`` without weights; ``operators``: (domain, name) → how often,
    those of inner graphs included.

    ``functions``: the (domain, name) that the file itself defines. ``weights``: element type → how many tensors.
    ``external``: the files that hold weights, relative to the model's folder.
    """

    opset: int = 0
    ir: int = 0
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    operators: Counter[tuple[str, str]] = field(default_factory=Counter)
    functions: set[tuple[str, str]] = field(default_factory=set)
    weights: Counter[int] = field(default_factory=Counter)
    external: set[str] = field(default_factory=set)
    metadata: dict[str, str] = field(default_factory=dict)


def read_facts(path: Path) -> OnnxFacts:
    """What the ONNX model in ``path`` says of itself.

    Raises:
        ConfigError: the file cannot be read, or is no ONNX model.
    """
    try:
        with open_file(path) as f:
            content = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror})") from e
    except ValueError as e:  # an empty file cannot be mapped
        raise ConfigError(f"{path}: no ONNX model ({e}); export it again") from e
    return facts_in(content, path)


def facts_in(content: bytes | mmap.mmap, path: Path) -> OnnxFacts:
    """What the ONNX model ``content``, of ``path``, says of itself.

    Raises:
        ConfigError: it is no ONNX model.
    """
    facts = OnnxFacts()
    try:
        for number, value in _fields(memoryview(content)):
            _read_model(facts, number, value)
    except (Malformed, ValueError, TypeError, RecursionError) as e:
        raise ConfigError(f"{path}: no ONNX model ({e}); export it again") from e
    if not facts.opset:
        raise ConfigError(f"{path}: no ONNX model (it names no operator set); export it again")
    if not facts.outputs:
        raise ConfigError(f"{path}: gives no output; export it with its logits as one")
    return facts


def _read_model(facts: OnnxFacts, number: int, value: int | memoryview) -> None:
    if number == 1:
        facts.ir = _number(value)
    elif number == 7:
        _read_graph(facts, _message(value), depth=0)
    elif number == 8:
        parts = dict(_fields(_message(value)))
        if _text(parts.get(1, memoryview(b""))) in ("", "ai.onnx"):
            facts.opset = int(_number(parts.get(2, 0)))
    elif number == 14:
        key, text = _entry(_message(value))
        facts.metadata[key] = text
    elif number == 25:
        _read_function(facts, _message(value))


def _read_function(facts: OnnxFacts, message: memoryview) -> None:
    name = domain = ""
    for number, value in _fields(message):
        if number == 1:
            name = _text(value)
        elif number == 10:
            domain = _text(value)
        elif number == 7:
            _read_node(facts, _message(value), depth=1)
    facts.functions.add((domain, name))


def _read_graph(facts: OnnxFacts, message: memoryview, depth: int) -> None:
    """The main graph, ``depth`` 0, or one inside a node, whose inputs are its own affair."""
    if depth > _DEEPEST:
        raise ValueError(f"graphs are nested more than {_DEEPEST} deep")
    weights: set[str] = set()
    inputs: list[Value] = []
    for number, value in _fields(message):
        if number == 1:
            _read_node(facts, _message(value), depth)
        elif number == 5:
            weights.add(_read_tensor(facts, _message(value)))
        elif depth == 0 and number == 11:
            inputs.append(_value(_message(value)))
        elif depth == 0 and number == 12:
            facts.outputs.append(_value(_message(value)))
    facts.inputs += [value for value in inputs if value.name not in weights]  # IR 3 lists weights among them


def _read_node(facts: OnnxFacts, message: memoryview, depth: int) -> None:
    name = domain = ""
    for number, value in _fields(message):
        if number == 4:
            name = _text(value)
        elif number == 7:
            domain = _text(value)
        elif number == 5:
            _read_attribute(facts, _message(value), depth)
    facts.operators["" if domain == "ai.onnx" else domain, name] += 1


def _read_attribute(facts: OnnxFacts, message: memoryview, depth: int) -> None:
    for number, value in _fields(message):
        if number in (5, 10):
            _read_tensor(facts, _message(value))
        elif number in (6, 11):
            _read_graph(facts, _message(value), depth + 1)


def _read_tensor(facts: OnnxFacts, message: memoryview) -> str:
    """The tensor's name."""
    name, kind, stored, location = "", 0, 0, ""
    for number, value in _fields(message):
        if number == 2:
            kind = _number(value)
        elif number == 8:
            name = _text(value)
        elif number == 13:
            key, text = _entry(_message(value))
            location = text if key == "location" else location
        elif number == 14:
            stored = _number(value)
    facts.weights[kind] += 1
    if stored == 1:
        facts.external.add(location)
    return name


def _value(message: memoryview) -> Value:
    parts = dict(_fields(message))
    tensor = dict(_fields(_message(parts.get(2, memoryview(b"")))))
    inner = dict(_fields(_message(tensor.get(1, memoryview(b"")))))
    shape = inner.get(2)
    dims = None if shape is None else tuple(_dim(_message(d)) for n, d in _fields(_message(shape)) if n == 1)
    return Value(_text(parts.get(1, memoryview(b""))), _number(inner.get(1, 0)), dims)


def _dim(message: memoryview) -> int | None:
    """0 and below are written where exporters mean that any will do."""
    size = _number(dict(_fields(message)).get(1, 0))
    return size if 0 < size < 1 << 62 else None


def _entry(message: memoryview) -> tuple[str, str]:
    parts = dict(_fields(message))
    return _text(parts.get(1, memoryview(b""))), _text(parts.get(2, memoryview(b"")))


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message must be")
    return value


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise ValueError("a message where a number must be")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode("utf-8", errors="replace")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value: a number, or the bytes of a message, text or packed list."""
    for number, _, value in read_message(message):
        yield number, value if isinstance(value, int) else memoryview(value)
