"""Small ONNX graphs for engine builds, made in place: float32 x[N, 8, 8, 8] → y, with one layer named ``a/…``."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.graph.quantization.blocks import int4_tensor

__all__ = ["attention_3d", "attention_of_itself", "bfloat16_with_float32_weights", "int4_product", "layer"]

FLOAT = TensorProto.FLOAT
LAYER = {"Conv": "a/Conv", "ConvTranspose": "a/ConvTranspose", "MatMul": "a/MatMul"}


def layer(
    op: str = "Conv",
    quantized: bool = True,
    activation: Any = np.int8,
    activation_scales: int = 0,
    zero_point: int = 0,
    weight_axis: int | None = None,
    bias: str = "float",
    dtype: Any = np.float32,
) -> bytes:
    """One layer with Q/DQ around it; each argument but the first is a way to get it wrong."""
    constants: dict[str, np.ndarray] = {}
    nodes = []
    random = np.random.default_rng(0)
    kernel = (8, 8) if op == "MatMul" else (8, 8, 3, 3)
    right_axis = 1 if op in ("MatMul", "ConvTranspose") else 0
    x, weight = "x", "w"
    if quantized:
        shape = (activation_scales,) if activation_scales else ()
        constants["xs"] = np.full(shape, 0.05, np.float32)
        constants["xz"] = np.full(shape, zero_point, activation)
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], name="a/Q", axis=1),
            helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], name="a/DQ", axis=1),
        ]
        constants["wq"] = random.integers(-127, 128, kernel).astype(np.int8)
        constants["ws"] = np.full(8, 0.01, np.float32)
        axis = right_axis if weight_axis is None else weight_axis
        nodes.append(helper.make_node("DequantizeLinear", ["wq", "ws"], ["wd"], name="w/DQ", axis=axis))
        x, weight = "xd", "wd"
    else:
        constants["w"] = random.normal(0, 1, kernel).astype(dtype)
    inputs = [x, weight]
    if bias == "int32":
        constants["b"], constants["bs"] = np.ones(8, np.int32), np.array(0.001, np.float32)
        nodes.append(helper.make_node("DequantizeLinear", ["b", "bs"], ["bd"], name="b/DQ"))
        inputs.append("bd")
    attributes = {} if op == "MatMul" else {"pads": [1, 1, 1, 1]}
    nodes.append(helper.make_node(op, inputs, ["y"], name=LAYER[op], **attributes))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return _model(nodes, constants, kind)


def int4_product(outputs: int = 16) -> bytes:
    """float32 x[N, 64] → y, ``a/MatMul`` on INT4 weights in blocks of 32."""
    steps = np.random.default_rng(0).integers(-7, 8, (64, outputs)).astype(np.int8)
    stored = int4_tensor(steps, "w")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["wd"], name="w/DQ", axis=0, block_size=32),
        helper.make_node("MatMul", ["x", "wd"], ["y"], name=LAYER["MatMul"]),
    ]
    ends = [helper.make_tensor_value_info(name, FLOAT, ["n", size]) for name, size in (("x", 64), ("y", outputs))]
    scales = numpy_helper.from_array(np.full((2, outputs), 0.01, np.float32), "s")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [stored, scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


def bfloat16_with_float32_weights() -> bytes:
    """A BF16 graph as an exporter writes it that folds batch norm after it has cast."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="a/Conv", pads=[1, 1, 1, 1])
    return _model([node], {"w": np.ones((8, 8, 3, 3), np.float32)}, TensorProto.BFLOAT16)


def attention_3d() -> bytes:
    """ONNX Attention with 3-D inputs, which the checker takes."""
    ends = [helper.make_tensor_value_info(name, FLOAT, ["n", 4, 8]) for name in ("q", "k", "v", "y")]
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], name="a/Attention", q_num_heads=2, kv_num_heads=2)
    return _attention(node, ends)


def attention_of_itself() -> bytes:
    """ONNX Attention with one tensor as q, k and v, which the checker takes."""
    ends = [helper.make_tensor_value_info(name, FLOAT, [1, 2, 16, 64]) for name in ("q", "y")]
    return _attention(helper.make_node("Attention", ["q", "q", "q"], ["y"], name="a/Attention"), ends)


def _attention(node: Any, ends: list[Any]) -> bytes:
    graph = helper.make_graph([node], "g", ends[:-1], ends[-1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return bytes(model.SerializeToString())


def _model(nodes: list[Any], constants: dict[str, np.ndarray], kind: int) -> bytes:
    ends = [helper.make_tensor_value_info(name, kind, ["n", 8, 8, 8]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())
