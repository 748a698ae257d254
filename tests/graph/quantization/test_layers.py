"""Which layers there are, and in which precision each computes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization.layers import layer_precision, quantizable

from ...onnx_fixtures import Net


def rows(net: Net) -> str:
    """float32[batch, 64, 1]: what a MatMul may read."""
    net.constant("shape", np.array([0, 64, 1]))
    return net.add("rows", "Reshape", net.planes(), "shape")


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_a_layer_whose_weights_are_hidden_is_listed_in_floating_point(kind: type[np.floating]) -> None:
    net = Net()
    x = rows(net)
    net.constant("w", np.ones((8, 1), np.float32))
    turned = net.add("turned", "Transpose", "w", perm=[1, 0])
    if kind is np.float16:
        x, turned = (net.add(f"{name}.half", "Cast", name, to=TensorProto.FLOAT16) for name in (x, turned))
    wide = net.add("wide", "Cast", net.add("q", "MatMul", x, turned), to=TensorProto.FLOAT)
    net.add("logits", "ReduceMean", wide, axes=[1], keepdims=0)
    model = net.model(8)
    assert layer_precision(model) == {"q/MatMul": {np.float32: "fp32", np.float16: "fp16"}[kind]}


def test_a_product_with_what_is_computed_is_no_layer_whichever_side_is_constant() -> None:
    net = Net()
    x = rows(net)
    net.constant("left", np.ones((3, 64), np.float32))
    net.add("logits", "ReduceMean", net.add("mixed", "MatMul", "left", x), axes=[2], keepdims=0)
    assert layer_precision(net.model(3)) == {}


def test_only_matrices_of_float32_are_weights_to_quantize() -> None:
    net = Net()
    x = rows(net)
    net.constant("half", np.ones((1, 8), np.float16))
    narrow = net.add("narrow", "MatMul", net.add("x.half", "Cast", x, to=TensorProto.FLOAT16), "half")
    net.weight("matrix", 8, 4)
    wide = net.add("wide", "MatMul", net.add("x.float", "Cast", narrow, to=TensorProto.FLOAT), "matrix")
    net.constant("vector", np.ones(4, np.float32))
    sums = net.add("sums", "MatMul", wide, "vector")
    net.add("logits", "Relu", sums)
    model = net.model(64)
    assert [node.name for node in quantizable(Index(model), set())] == ["wide/MatMul"]
