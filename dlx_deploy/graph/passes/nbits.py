"""INT4 weights as ONNX Runtime's kernels for CPUs read them: MatMulNBits, an operator of its own (com.microsoft).

Between DequantizeLinear and MatMul ONNX Runtime 1.19 and newer would put a kernel of their own choice, which rounds
activations to 8 bits; older ones know no INT4. MatMulNBits has been there since 1.17, the oldest that packages run on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dlx_deploy.graph.model import NBITS, STANDARD, Index, int_attribute
from dlx_deploy.graph.passes.base import Pass

__all__ = ["DOMAIN", "as_matmul_nbits"]

DOMAIN = "com.microsoft"
IN_FLOAT32 = 1
"""``accuracy_level``: activations stay float32; left out, a kernel may choose."""
MIDDLE = 8
"""What stands for 0 in the operator's unsigned 4 bits, where it is given no zero points."""


def as_matmul_nbits(opset: int) -> Pass:
    """The pass that makes MatMulNBits of products with INT4 weights, in a graph that was at ``opset`` before them."""
    return Pass("matmul-nbits", lambda model: _converted(model, opset), ensures=_left_over)


def _converted(model: ModelProto, opset: int) -> ModelProto:
    index, nodes, gone = Index(model), list[NodeProto](), set[str]()
    for node in model.graph.node:
        restored = index.made_by(node.input[1], "DequantizeLinear") if len(node.input) > 1 else None
        if restored is None or not _is_int4(index, restored):
            nodes.append(node)
            continue
        gone.add(restored.name)
        nodes += _product(model, index, node, restored)
    kept = [node for node in nodes if node.name not in gone]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for entry in model.opset_import:
        if entry.domain in STANDARD:
            entry.version = opset
    if gone and all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    model.ir_version = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    return model


def _product(model: ModelProto, index: Index, node: NodeProto, restored: NodeProto) -> list[NodeProto]:
    """The layer on blocks, under its own name, and the sum with its bias."""
    axis, size = int_attribute(restored, "axis", 1), int_attribute(restored, "block_size", 0)
    steps = np.moveaxis(index.array(restored.input[0]).astype(np.int8), axis, 1)  # [outputs, inputs]
    scales = np.moveaxis(index.array(restored.input[1]), axis, 1)
    outputs, inputs = steps.shape
    names = [f"{restored.input[0]}/nbits", f"{restored.input[1]}/nbits"]
    if not index.initializers.get(names[0]):
        tensors = (_packed(steps, size), np.ascontiguousarray(scales).reshape(-1))
        new = [numpy_helper.from_array(values, name) for values, name in zip(tensors, names, strict=True)]
        model.graph.initializer.extend(new)
        index.initializers.update({tensor.name: tensor for tensor in new})
    bias = node.input[2] if len(node.input) > 2 else ""
    made = f"{node.output[0]}/product" if bias else node.output[0]
    product = helper.make_node(
        NBITS,
        [node.input[0], *names],
        [made],
        name=node.name,
        domain=DOMAIN,
        K=inputs,
        N=outputs,
        bits=4,
        block_size=size,
        accuracy_level=IN_FLOAT32,
    )
    added = helper.make_node("Add", [made, bias], [node.output[0]], name=f"{node.name}/bias")
    return [product, added] if bias else [product]


def _packed(steps: NDArray[np.int8], size: int) -> NDArray[np.uint8]:
    """uint8[outputs, blocks, size / 2]: two integers to a byte, the first in its lower half, 8 stands for 0."""
    unsigned = (steps + MIDDLE).astype(np.uint8).reshape(len(steps), -1, size)
    return np.asarray(unsigned[..., 0::2] | (unsigned[..., 1::2] << 4), np.uint8)


def _is_int4(index: Index, node: NodeProto) -> bool:
    stored = index.initializers.get(node.input[0])
    return stored is not None and stored.data_type == TensorProto.INT4


def _left_over(model: ModelProto) -> Sequence[str]:
    read = {name for node in model.graph.node for name in node.input}
    return [f"{t.name} is INT4" for t in model.graph.initializer if t.data_type == TensorProto.INT4 and t.name in read]
