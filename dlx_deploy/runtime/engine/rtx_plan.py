"""What the kernels of a TensorRT-RTX engine compute in, read from the serialized plan.

TensorRT-RTX builds engines where there is no GPU but cannot load them there, so that its inspector cannot be asked. The
plan holds its kernels as text, in a form that NVIDIA documents nowhere; this reads what 1.7 writes. Every graph is
``NLYM``, four bytes, a length (uint64, little-endian) and the text: ``header``, ``descriptors`` (name and type of each
tensor) and ``main`` (a statement for each kernel, with its tensors and the ONNX nodes in it). A kernel that is compiled
on the device (``runtime_fusion``) has a graph of its own further on, numbered ``binary=`` and marked
``accelerators={*}``. Anything else than this is refused: an empty or guessed table would prove nothing.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

from ..errors import EngineError
from .table import EngineLayer, PrecisionTable

__all__ = ["onnx_layers", "read_rtx_plan"]

_GRAPH = re.compile(rb"NLYM.{4}(.{8})header \{\n", re.DOTALL)
_TEXT_AT = 16  # bytes from the mark to the text
_SECTION = re.compile(r"^(header|descriptors|main) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_TENSOR = re.compile(r'^  tensor=\{.* name="([^"]*)" .*\btype=(\w+) \}$')
_STATEMENT = re.compile(r"^  (\w+)=\{ (.*)\}\s*$")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\[ONNX Layer: |[\x1e\x1f]|$)")
_COMPUTE = {"corrltn": "convolution", "deconvolution": "deconvolution", "fully_connected": "gemm"}
_PRECISION = {
    "float": "fp32",
    "half": "fp16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "int8": "int8",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
}
_MOVES = {"Cast", "Conc", "Copy", "Move", "Repl", "Resh", "Slic", "Tran"}
"""Of generated kernels, whose names list what they do (``__myl_CastTran``): those steps that compute nothing."""
_WORDS = re.compile(r"[A-Z][a-z0-9]*")


@dataclass(frozen=True)
class _Statement:
    op: str
    text: str

    def names(self, *keys: str) -> Tuple[str, ...]:
        """The tensors listed under the first of ``keys`` that is there."""
        for key in keys:
            found = re.search(rf"(?:^| ){key}=\{{([^}}]*)\}}", self.text)
            if found:
                return tuple(re.findall(r'"([^"]*)"', found.group(1)))
        return ()

    def value(self, key: str) -> str:
        found = re.search(rf'(?:^| ){key} ?= ?(?:"([^"]*)"|(\S+))', self.text)
        return (found.group(1) or found.group(2) or "") if found else ""


@dataclass(frozen=True)
class _Graph:
    on_device: bool
    types: Dict[str, str]
    statements: Tuple[_Statement, ...]


def read_rtx_plan(plan: bytes) -> PrecisionTable:
    """The kernels in a serialized TensorRT-RTX engine, in its order; their ``nodes`` are ONNX node names.

    Raises:
        EngineError: the plan does not hold them in the form that is known here.
    """
    graphs = [_graph(text) for text in _texts(plan)]
    if not graphs or graphs[0].on_device:
        raise _unreadable("no list of kernels was found in it")
    layers: List[EngineLayer] = []
    for at, graph in enumerate(graphs):
        if not graph.on_device:
            layers += _layers(graph, _compiled_on_device(graphs[at + 1 :]))
    if not layers:
        raise _unreadable("its list of kernels is empty")
    return PrecisionTable("plan", tuple(layers))


def onnx_layers(text: str) -> Tuple[str, ...]:
    """The node names in ``[ONNX Layer: a][ONNX Layer: b]``, in order and each once, however they are separated."""
    return tuple(dict.fromkeys(_NODE.findall(text)))


def _texts(plan: bytes) -> List[str]:
    texts = []
    for mark in _GRAPH.finditer(plan):
        start = mark.start() + _TEXT_AT
        size = struct.unpack("<Q", mark.group(1))[0]
        if start + size > len(plan):
            raise _unreadable(f"a list of kernels of {size} bytes goes past its end")
        try:
            texts.append(plan[start : start + size].decode("utf-8"))
        except UnicodeDecodeError as e:
            raise _unreadable(f"a list of kernels is no text ({e.reason})") from e
    return texts


def _graph(text: str) -> _Graph:
    sections = dict(_SECTION.findall(text))
    missing = {"header", "descriptors", "main"} - set(sections)
    if missing:
        raise _unreadable(f"its list of kernels has no section {' and '.join(sorted(missing))}")
    return _Graph(
        on_device="accelerators={*}" in sections["header"],
        types=_types(sections["descriptors"]),
        statements=tuple(_statement(line) for line in sections["main"].split("\n") if "={" in line),
    )


def _types(descriptors: str) -> Dict[str, str]:
    types: Dict[str, str] = {}
    for line in descriptors.strip("\n").split("\n"):
        tensor = _TENSOR.match(line)
        if tensor is None:
            raise _unreadable(f"the tensor {line.strip()[:120]!r} has no name or no type")
        types[tensor.group(1)] = tensor.group(2)
    return types


def _statement(line: str) -> _Statement:
    found = _STATEMENT.match(line)
    if found is None:
        raise _unreadable(f"the kernel {line.strip()[:120]!r} is not understood")
    return _Statement(found.group(1), found.group(2))


def _compiled_on_device(graphs: Sequence[_Graph]) -> List[_Graph]:
    """The graphs that follow one of the engine and belong to it."""
    own = []
    for graph in graphs:
        if not graph.on_device:
            break
        own.append(graph)
    return own


def _layers(graph: _Graph, fused: Sequence[_Graph]) -> List[EngineLayer]:
    layers: List[EngineLayer] = []
    for statement in graph.statements:
        if statement.op == "runtime_fusion":
            layers += _fusion(statement, graph, fused)
        elif statement.op in _COMPUTE:
            layers.append(_computing(statement, graph))
        elif statement.op not in ("shape_call", "signal", "wait"):
            layers.append(_other(statement, graph))
    return layers


def _computing(statement: _Statement, graph: _Graph) -> EngineLayer:
    """A convolution or a matrix product: int8 only if it reads both its data and its weights in int8."""
    name, operands = statement.value("name"), statement.names("input")[:2]
    types = [graph.types.get(operand, "") for operand in operands]
    if len(types) < 2 or "" in types:
        raise _unreadable(f"the kernel {name!r} reads {operands!r}, whose types it does not tell")
    data, weights = (_PRECISION.get(kind, "other") for kind in types)
    weight_only = data in ("fp16", "bf16", "fp32") and weights in ("int8", "fp8", "other")
    precision = data if data == weights or weight_only else "other"
    return EngineLayer(name, _COMPUTE[statement.op], precision, onnx_layers(statement.value("layers")))


def _fusion(statement: _Statement, graph: _Graph, fused: Sequence[_Graph]) -> List[EngineLayer]:
    """The kernels of one that is compiled on the device: what it is built around, if that is known, computes."""
    name, nodes = statement.value("name"), onnx_layers(statement.value("layers"))
    number = statement.value("binary")
    if not number.isdigit() or int(number) >= len(fused):
        raise _unreadable(f"the kernel {name!r} is compiled on the device, and its graph {number!r} is not in the plan")
    inner = fused[int(number)]
    found = [_computing(s, inner) for s in inner.statements if s.op in _COMPUTE]
    strangers = [node for layer in found for node in layer.nodes if node not in nodes]
    if strangers or (statement.value("backbone") and not found):
        raise _unreadable(f"the kernel {name!r} and its graph {number} do not fit each other")
    return found or [_other(statement, graph)]


def _other(statement: _Statement, graph: _Graph) -> EngineLayer:
    name = statement.value("name")
    nodes = onnx_layers(statement.value("layers"))
    precision = _widest([graph.types.get(n, "") for n in statement.names("input_args", "input")])
    if name.startswith("_gemm"):  # attention in one kernel, made for the graph
        return EngineLayer(name, "gemm", precision, nodes)
    steps = _WORDS.findall(name) if name.startswith("__myl_") else [statement.op.capitalize()[:4]]
    moves = bool(steps) and set(steps) <= _MOVES
    return EngineLayer(name, "reformat" if moves else "other", precision, nodes)


def _widest(types: Sequence[str]) -> str:
    """Of the arithmetic types that a kernel reads; shapes, which are whole numbers, do not count."""
    found = [_PRECISION[kind] for kind in types if kind in _PRECISION]
    return next((p for p in ("fp32", "bf16", "fp16", "fp8", "int8") if p in found), "other")


def _unreadable(what: str) -> EngineError:
    return EngineError(
        f"the plan of this TensorRT-RTX version cannot be read: {what}; so nothing proves the engine's precision. "
        "Install tensorrt-rtx 1.7, whose plans are known"
    )
