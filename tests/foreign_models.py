"""Small float32 ONNX models as others' exporters write them, made in place."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

__all__ = ["CLASSES", "SIDE", "foreign_net", "saved"]

SIDE, CLASSES = 8, 10


def foreign_net(
    opset: int = 17,
    *,
    layout: str = "NCHW",
    batch: Any = "n",
    tail: str = "",
    extra: bool = False,
    classes: int = CLASSES,
) -> ModelProto:
    """Conv, Relu, pooling, a Reshape to a constant shape where the batch is fixed, Gemm; for one channel of 8 x 8.

    ``tail``: what follows the logits. ``extra``: the features are an output too, before the answer.
    """
    random = np.random.default_rng(0)
    planes = "x"
    nodes = []
    dims = [batch, 1, SIDE, SIDE] if layout == "NCHW" else [batch, SIDE, SIDE, 1]
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]))
        planes = "planes"
    shape = [batch, -1] if isinstance(batch, int) else [0, -1]
    nodes += [
        helper.make_node("Conv", [planes, "conv.weight"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("AveragePool", ["relu"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Reshape", ["pooled", "shape"], ["features"]),
        helper.make_node("Gemm", ["features", "head.weight", "head.bias"], ["logits_"], transB=1),
    ]
    name = "logits_"
    if tail:
        attributes = {"axis": 1} if tail in ("Softmax", "LogSoftmax") else {}
        nodes.append(helper.make_node(tail, [name], ["y"], **attributes))
        name = "y"
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, classes])]
    if extra:
        outputs.insert(0, helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, 16]))
    weights = {
        "conv.weight": random.normal(0, 0.5, (4, 1, 3, 3)).astype(np.float32),
        "head.weight": random.normal(0, 0.5, (classes, 16)).astype(np.float32),
        "head.bias": random.normal(0, 0.5, classes).astype(np.float32),
        "shape": np.array(shape, np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "others",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        outputs,
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)


def saved(path: Any, model: ModelProto) -> Any:
    """``path``, with ``model`` in it."""
    path.write_bytes(model.SerializeToString())
    return path
