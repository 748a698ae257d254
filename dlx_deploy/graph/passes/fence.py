"""INT8 products that TensorRT-RTX would cut into three in floating point, kept whole; no torch.

Attention written by hand computes queries, keys and values in one product and cuts its result. TensorRT-RTX 1.7 takes
that for three products: it dequantizes the weights, cuts them, and computes each in floating point. It does not move a
cut across an operator that changes numbers, so one that changes none stands before the cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dlx_deploy.graph.model import Index, infer
from dlx_deploy.graph.passes.base import Pass

__all__ = ["FENCE"]

PRODUCTS = ("Gemm", "MatMul")
CUTS = ("Gather", "Slice", "Split")
MOVES = (*CUTS, "Cast", "Identity", "Mul", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""What a cut is moved across, where all that they read beside the tensor is constant."""
TYPES: Mapping[int, type[np.float16 | np.float32]] = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.FLOAT: np.float32,
}


def _fenced(model: ModelProto) -> ModelProto:
    """The same graph where it has no such product: its bytes stay as they are."""
    index = Index(model)
    cut = [name for node in model.graph.node if (name := _cut_for_attention(index, node))]
    types = infer(model) if cut else {}
    for name in cut:
        if name in types and types[name].dtype in TYPES:
            _fence(model, name, TYPES[types[name].dtype])
    return model


def _cut_for_attention(index: Index, node: NodeProto) -> str:
    """The tensor to fence: what an INT8 ``node`` and its bias give, if queries and keys are cut from it."""
    if node.op_type not in PRODUCTS or not all(index.made_by(name, "DequantizeLinear") for name in node.input[:2]):
        return ""
    name = node.output[0]
    readers = index.readers(name)
    if len(readers) == 1 and readers[0].op_type == "Add" and _rest_is_constant(index, readers[0], name):
        name = readers[0].output[0]
    reached, cuts = _reached(index, name)
    products = (reader for tensor in reached for reader in index.readers(tensor) if reader.op_type == "MatMul")
    return name if cuts and any(set(product.input) <= reached for product in products) else ""


def _reached(index: Index, name: str) -> tuple[set[str], bool]:
    """The tensors that are ``name``, cut and moved, and whether it is cut at all."""
    reached, waiting, cuts = {name}, [name], False
    while waiting:
        tensor = waiting.pop()
        for node in _moves(index, tensor):
            cuts = cuts or node.op_type in CUTS
            new = [output for output in node.output if output and output not in reached]
            reached.update(new)
            waiting += new
    return reached, cuts


def _moves(index: Index, tensor: str) -> Iterator[NodeProto]:
    return (n for n in index.readers(tensor) if n.op_type in MOVES and _rest_is_constant(index, n, tensor))


def _rest_is_constant(index: Index, node: NodeProto, tensor: str) -> bool:
    return all(name == tensor or name in index.initializers for name in node.input if name)


def _fence(model: ModelProto, name: str, kind: type[np.float16 | np.float32]) -> None:
    """A Clip to all numbers that the type holds behind the tensor ``name``, for all that read it."""
    ends = [f"{name}/lowest", f"{name}/highest"]
    for end, value in zip(ends, (np.finfo(kind).min, np.finfo(kind).max), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, kind), end))
    fence = helper.make_node("Clip", [name, *ends], [f"{name}/whole"], name=f"{name}/Clip")
    nodes = list(model.graph.node)
    for node in nodes:
        for i, read in enumerate(node.input):
            if read == name:
                node.input[i] = f"{name}/whole"
    place = next(i for i, node in enumerate(nodes) if name in node.output)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: place + 1], fence, *nodes[place + 1 :]])


FENCE = Pass("fence", _fenced)
