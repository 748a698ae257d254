"""The layers of a TensorRT-RTX plan, read from the plan itself: it cannot be inspected on a machine without its GPU.

A plan holds, beside its binaries, a text that lists tensors with their types and kernels with their operands and the
ONNX nodes that each comes from. That text is not documented: it was read off plans of TensorRT-RTX 1.7.1. A plan that
does not look like them is an error, never an empty table.
"""

from __future__ import annotations

import re
from typing import Dict, Iterator, List, Mapping, Optional, Tuple

from ..errors import EngineError
from .table import COMPUTE, WIDTH, EngineLayer, PrecisionTable

__all__ = ["read_rtx_plan"]

MAGIC, HEADER = b"NLYM", b"header {\n  version = "
STATEMENT = re.compile(r"^ +(\w+) ?= ?\{ (.*?) \}$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r'name=(?:"([^"]*)"|(\S+))')
LAYERS = re.compile(r'layers="([^"]*)"')
NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\w*(?:\[ONNX Layer: |[\x1e\x1f|]|$))")
"""A name may hold brackets, and a remark may follow it."""
TYPE = re.compile(r"\btype=(\w+)")
QUOTED = re.compile(r'"([^"]*)"')
KINDS = {
    "corrltn": "convolution",
    "convolution": "convolution",
    "deconvolution": "deconvolution",
    "bwd_data": "deconvolution",
    "dgrad": "deconvolution",
    "fully_connected": "gemm",
    "mma": "gemm",
    "gemm": "gemm",
}
FUSION = "fusion"
INT4 = "int4"
ATTENTION = re.compile(r"_gemm_mha|_mha_|fmha")
PRECISIONS = {
    "int8": "int8",
    "fp8_e4m3": "fp8",
    "half": "fp16",
    "float": "fp32",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "double": "fp64",
}
MOVES = re.compile(r"__myl_((Cast|Move|Tran|Resh|Repl)+)$")
"""Generated kernels that only cast, copy or transpose; their name is made of what they do."""


def read_rtx_plan(plan: bytes) -> PrecisionTable:
    """What each kernel of the plan computes in.

    Raises:
        EngineError: the plan is cut short, has no such text, or one that names no kernel.
    """
    layers: List[EngineLayer] = []
    for text in _texts(plan):
        statements = STATEMENT.findall(text)
        types = _tensor_types(statements)
        types.update(dict.fromkeys(_restored(statements, types), INT4))
        layers += [layer for kind, body in statements for layer in [_layer(kind, body, types)] if layer]
    inside = {node for layer in layers if layer.kind != FUSION for node in layer.nodes if layer.kind in COMPUTE}
    layers = [layer for layer in layers if layer.kind != FUSION or not inside.intersection(layer.nodes)]
    if not layers:
        raise EngineError(
            "the kernels of this TensorRT-RTX plan cannot be read, so its precision cannot be proven; use the "
            "version that the target's profile names"
        )
    return PrecisionTable("plan", tuple(layers))


def _texts(plan: bytes) -> Iterator[str]:
    """Each text in turn: the magic, four bytes, the length as a little-endian number, then so many bytes.

    Raises:
        EngineError: a text is shorter than its length says.
    """
    start = plan.find(MAGIC)
    while start >= 0:
        head = start + len(MAGIC) + 4
        body = head + 8
        if plan.startswith(HEADER, body):  # else four bytes of a kernel that happen to be the magic
            length = int.from_bytes(plan[head:body], "little")
            if body + length > len(plan):
                raise EngineError("this TensorRT-RTX plan is cut short, so its precision cannot be proven")
            yield plan[body : body + length].decode("latin-1")
        start = plan.find(MAGIC, start + 1)


def _tensor_types(statements: List[Tuple[str, str]]) -> Dict[str, str]:
    """Tensor → its type, as the plan spells it."""
    tensors = [body for kind, body in statements if kind in ("tensor", "sub_tensor")]
    typed = [(_name(body), TYPE.search(body)) for body in tensors]
    return {name: match.group(1) for name, match in typed if match}


def _restored(statements: List[Tuple[str, str]], types: Mapping[str, str]) -> Iterator[str]:
    """The weights that a product reads as floating point and the plan stores as INT4: integers times block scales."""
    for kind, body in statements:
        read, made = _operands(body, "input"), _operands(body, "output")
        if kind == "mul" and read and types.get(read[0]) == INT4:
            yield from made


def _layer(kind: str, body: str, types: Dict[str, str]) -> Optional[EngineLayer]:
    listed = LAYERS.search(body)
    nodes = tuple(NODE.findall(listed.group(1))) if listed else ()
    name = _name(body)
    if kind in KINDS:
        return EngineLayer(name, KINDS[kind], _operand_precision(body, "input", types), nodes)
    if kind == "runtime_fusion":  # what it computes in stands in a text of its own
        return EngineLayer(name, FUSION, "other", nodes)
    if kind == "function":
        compute = "gemm" if ATTENTION.search(name) else "reformat" if MOVES.match(name) else "other"
        return EngineLayer(name, compute, _operand_precision(body, "input_args", types), nodes)
    return EngineLayer(name, "reformat", "other", nodes) if kind in ("copy", "reformat") and nodes else None


def _operand_precision(body: str, key: str, types: Dict[str, str]) -> str:
    """The wider type of the first two operands: the activation and the weights, or two activations."""
    operands = [types.get(name, "") for name in _operands(body, key)[:2]]
    if operands[1:] == [INT4]:
        return INT4
    precisions = [PRECISIONS.get(kind, "other") for kind in operands]
    return "other" if "other" in precisions or not precisions else max(precisions, key=WIDTH.__getitem__)


def _operands(body: str, key: str) -> List[str]:
    listed = re.search(key + r" ?= ?\{([^}]*)\}", body)
    return QUOTED.findall(listed.group(1)) if listed else []


def _name(body: str) -> str:
    match = NAME.search(body)
    return (match.group(1) or match.group(2) or "") if match else ""
