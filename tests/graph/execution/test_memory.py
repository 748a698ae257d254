from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dlx_deploy.graph.execution.memory import peak_row_bytes, rows_within
from dlx_deploy.graph.quantization.scheme import TENSORRT

from ...onnx_fixtures import Net, residual_net, with_qdq

PLANE = 4 * 8 * 8
"""Bytes of one channel of 8 x 8 float32."""


def test_what_lives_from_the_node_that_makes_it_to_the_last_that_reads_it() -> None:
    """At ``conv3`` the shortcut (8 planes), what it reads (8) and what it gives (8) are there, and the input is not."""
    assert peak_row_bytes(residual_net()) == 24 * PLANE


def test_a_chain_holds_two_tensors_at_a_time() -> None:
    net = Net()
    x = net.conv("wide", net.planes(), 1, 32)
    for name in ("a", "b", "c"):
        x = net.add(name, "Relu", x)
    assert peak_row_bytes(net.head(x, 32)) == 2 * 32 * PLANE


def test_weights_that_are_dequantized_are_no_activations() -> None:
    """Of int8 in exact arithmetic each tensor of integers is held as float32: the sum, both ends of a layer."""
    plain = residual_net()
    assert peak_row_bytes(plain) <= peak_row_bytes(with_qdq(plain, TENSORRT)) <= 40 * PLANE


def test_a_graph_whose_shapes_are_unknown_has_no_size() -> None:
    net = residual_net()
    net.graph.node[0].attribute[0].i = TensorProto.STRING  # a convolution of strings: inference refuses it
    net.graph.node.append(helper.make_node("Conv", ["float", "conv1.weight"], ["bad"]))
    assert peak_row_bytes(net) == 0


def test_weights_that_are_listed_as_inputs_are_no_activations() -> None:
    net = Net()
    net.constant("two", np.array(2, np.float32))  # of no dimension
    model = net.head(net.add("twice", "Mul", net.planes(), "two"), 1)
    before = peak_row_bytes(model)
    for tensor in model.graph.initializer:
        model.graph.input.insert(0, helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert peak_row_bytes(model) == before == 2 * PLANE


@pytest.mark.parametrize(("row", "rows"), [(0, 64), (1, 64), (10, 64), (26, 39), (1024, 1), (5000, 1)])
def test_rows_within_a_budget(row: int, rows: int) -> None:
    assert rows_within(row, 64, 1024) == rows


def test_numbers_of_eight_bytes_count_as_such() -> None:
    net = Net()
    net.add("wide", "Cast", net.add("x", "Flatten", "images"), to=TensorProto.DOUBLE)
    net.constant("two", np.full(1, 2.0))
    net.add("logits", "Cast", net.add("twice", "Mul", "wide", "two"), to=TensorProto.FLOAT)
    assert peak_row_bytes(onnx.shape_inference.infer_shapes(net.model(64))) == 2 * 8 * 64
