"""What a layer is, which of them can be quantized, which a pattern leaves out, and which precision each has.

A layer is a Conv, Gemm or MatMul with constant weights. The product of two activations (attention), Softmax,
LayerNormalization and gates are none, and stay in floating point.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from onnx import ModelProto, NodeProto, TensorProto

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import LAYERS, NBITS, WEIGHTED, Index, TensorInfo, attribute, infer, int_attribute
from dlx_deploy.graph.passes.fold import constants_of
from dlx_deploy.targets.kernels import IntegerKernels

__all__ = [
    "DYNAMIC",
    "dense_heads",
    "excluded",
    "image_layers",
    "layer_precision",
    "quantizable",
    "through_qdq",
    "weight_axis",
]

NUMBER = re.compile(r"^(.*/[A-Za-z]+)_[0-9]+$")
"""A node's name whose module makes several of its kind: see ``graph.passes.names``."""
HALVES: Mapping[int, str] = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
DYNAMIC, DYNAMIC_SUFFIX = "MatMulInteger", "_quant"
"""What ONNX Runtime makes of a MatMul or Gemm whose activations are quantized while it runs, and of its name."""


def weight_axis(node: NodeProto, rank: int) -> int:
    """The axis of the output channels in the layer's weights, whose rank is ``rank``."""
    if node.op_type == "MatMul":
        return rank - 1
    if node.op_type == "Gemm":
        return 0 if int_attribute(node, "transB", 0) else 1
    return 1 if node.op_type == "ConvTranspose" else 0


def excluded(model: ModelProto, patterns: Sequence[str]) -> set[str]:
    """The names of the nodes that a pattern (fnmatch, case-sensitive) matches.

    A pattern stands for modules: it matches a node by its name, by its name without the number that tells a module's
    uses apart (``cls/Conv`` is ``cls/Conv_2`` as well), or by the module that it is in or one around that (``cls``).
    Whichever use it names, all uses of the module's weights are matched: one module has one precision.

    Raises:
        ConfigError: a pattern matches no node.
    """
    nodes = list(model.graph.node)
    matched: set[str] = set()
    for pattern in patterns:
        hits = {node.name for node in nodes if any(fnmatchcase(name, pattern) for name in _names_of(node.name))}
        if not hits:
            raise ConfigError(f"quantize.exclude: {pattern!r} matches no node of the graph; {_nearest(pattern, nodes)}")
        matched |= hits
    uses = {(_without_number(n.name), n.input[1]) for n in nodes if n.name in matched and n.op_type in WEIGHTED}
    return matched | {n.name for n in nodes if n.op_type in WEIGHTED and (_without_number(n.name), n.input[1]) in uses}


def _names_of(node: str) -> list[str]:
    """What a pattern may call the node ``layer1.0.conv1/Conv_2``: that, without its number, and every module around."""
    parts = node.rpartition("/")[0].split(".")
    return [node, _without_number(node), *(".".join(parts[:end]) for end in range(1, len(parts) + 1))]


def _without_number(name: str) -> str:
    return NUMBER.sub(r"\1", name)


def _nearest(pattern: str, nodes: Sequence[NodeProto]) -> str:
    """The names most like ``pattern``, or the layers where none is alike."""
    known = list(dict.fromkeys(name for node in nodes for name in _names_of(node.name) if name))
    if close := get_close_matches(pattern, known, n=5):
        return f"the nearest: {', '.join(close)}"
    layers = [node.name for node in nodes if node.op_type in LAYERS]
    return f"its layers: {', '.join(layers[:40])}"


def quantizable(index: Index, left_out: set[str]) -> list[NodeProto]:
    """The layers to quantize, in graph order."""
    return [n for n in index.model.graph.node if n.name not in left_out and _has_plain_weights(n, index)]


_PREPROCESSING = ("Add", "Cast", "Div", "Mul", "Sub", "Transpose")
_PASSES = (
    *("Add", "Concat", "Resize"),
    *("Flatten", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    *("LogSoftmax", "Sigmoid", "Softmax"),
)
"""Operators behind which an answer is as fine as what they read."""


def dense_heads(index: Index) -> set[str]:
    """The nodes that make a dense output of the graph: convolutions behind which values are summed, resized, moved or
    squashed at most (``_PASSES``).

    Where integers pass from kernel to kernel their outputs would be integers, and so would be the answers.
    """
    heads: set[str] = set()
    waiting = [value.name for value in index.model.graph.output]
    while waiting:
        node = index.made_by(waiting.pop(), "Conv", *_PASSES)
        if node is None or node.name in heads:
            continue
        heads.add(node.name)
        if node.op_type != "Conv":
            waiting += list(node.input) if node.op_type in ("Add", "Concat") else list(node.input[:1])
    return heads


def image_layers(model: ModelProto, kernels: IntegerKernels) -> set[str]:
    """The first convolutions that ``kernels`` are slower for than floating point.

    None where no other layer would be left to quantize, and none where the size of the image is not known.
    """
    if not kernels.float_images:
        return set()
    index, shapes = Index(model), infer(model)
    front = {value.name for value in model.graph.input}
    for node in model.graph.node:
        if node.op_type in _PREPROCESSING and front & set(node.input):
            front.update(node.output)
    layers = quantizable(index, set())
    found = set()
    for node in (node for node in layers if node.op_type == "Conv" and node.input[0] in front & set(shapes)):
        image, kernel = shapes[node.input[0]].shape[1:], index.initializers[node.input[1]].dims[1:]
        if (kernel[0], max(kernel[1:])) in kernels.float_images and min(image[1:]) >= kernels.least_side:
            found.add(node.name)
    return found if len(found) < len(layers) else set()


def through_qdq(index: Index, name: str) -> str | None:
    """The tensor behind a DequantizeLinear and its QuantizeLinear, if any; ``None`` if ``name`` is not dequantized."""
    node = index.made_by(name, "DequantizeLinear")
    if node is None:
        return None
    quantize = index.made_by(node.input[0], "QuantizeLinear")
    return str(quantize.input[0] if quantize is not None else node.input[0])


def layer_precision(model: ModelProto) -> dict[str, str]:
    """Node name → ``int8``, ``int4``, ``fp8``, ``fp16``, ``bf16`` or ``fp32`` for every layer, as the graph has it.

    A convolution is always a layer, a Gemm or MatMul where its weights come from constants, computed or not: a layer
    whose weights are hidden behind other nodes runs in floating point and is listed as such.
    """
    index, computed = Index(model), constants_of(model)
    types: dict[str, TensorInfo] = {}
    precisions = {}
    for node in model.graph.node:
        if node.op_type == NBITS:
            precisions[node.name] = "int4"
        if node.op_type == DYNAMIC and node.input[1] in index.initializers:
            precisions[node.name.removesuffix(DYNAMIC_SUFFIX)] = "int8"
        if node.op_type not in WEIGHTED:
            continue
        weight = through_qdq(index, node.input[1])
        stored = index.initializers.get(weight or node.input[1])
        if stored is None and node.input[1] not in computed and node.op_type in ("Gemm", "MatMul"):
            continue  # the product of two activations
        if stored is not None and stored.data_type == TensorProto.INT4:
            precisions[node.name] = "int4"
            continue
        if stored is not None and weight is not None and through_qdq(index, node.input[0]) is not None:
            precisions[node.name] = "fp8" if stored.data_type == TensorProto.FLOAT8E4M3FN else "int8"
            continue
        if stored is None:
            types = types or infer(model)
        kind = stored.data_type if stored is not None else types[node.input[1]].dtype
        precisions[node.name] = HALVES.get(kind, "fp32")
    return precisions


def _has_plain_weights(node: NodeProto, index: Index) -> bool:
    if node.op_type not in LAYERS or node.input[0] in index.initializers:
        return False
    weight = index.initializers.get(node.input[1])
    if weight is None or weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2:
        return False
    plain_gemm = all(attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
    return node.op_type != "Gemm" or (plain_gemm and not int_attribute(node, "transA", 0))
