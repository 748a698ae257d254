"""What a last bit moves: nothing where only integers are summed, something where float16 or an exponential is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.graph.checks import spread as spread_module
from dlx_deploy.graph.checks.spread import BEND
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.model import load, to_bytes
from dlx_deploy.graph.quantization.scheme import TENSORRT
from dlx_deploy.runtime.backends.exact import exact_model

from ...arrays import moved, samples
from ...onnx_fixtures import images, residual_net, with_qdq


def quantized() -> bytes:
    return to_bytes(with_qdq(residual_net(opset=20), TENSORRT, (-3.0, 3.0)))


def test_integer_sums_do_not_move_and_what_is_bent_does() -> None:
    inputs = images(20)
    assert moved(to_bytes(residual_net(opset=20)), inputs) == pytest.approx(4e-6, rel=0.9)
    assert moved(quantized(), inputs) < 0.01


def test_only_what_is_not_exactly_defined_is_bent() -> None:
    twin = load(exact_model(quantized()))
    bent = load(spread_module.bent(to_bytes(twin), BEND))
    names = {node.name for node in bent.graph.node if node.name.endswith("/bend")}
    assert names == {"pooled/bend"}, "convolutions and the head sum integers; the pool sums floats"
    onnx.checker.check_model(bent, full_check=True)


def test_it_is_relative_to_the_largest_logit() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "w"], ["logits"]),
        ],
        "sum",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.full((4, 3), 1000, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    inputs = np.arange(40, dtype=np.uint8).reshape(10, 4)
    assert moved(to_bytes(model), inputs) == pytest.approx(BEND, rel=0.2)
    assert moved(to_bytes(model), inputs * 0) == 0.0


def test_a_map_of_classes_does_not_move_and_lends_no_output_its_tolerance() -> None:
    """The exponential of 0 is bent above a number that is a little over 1: the best class is another one."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Exp", ["zero"], ["one"]),
            helper.make_node("Add", ["x", "one"], ["near"]),
            helper.make_node("Add", ["x", "slightly"], ["far"]),
            helper.make_node("Concat", ["far", "near"], ["logits"], axis=1),
            helper.make_node("ArgMax", ["logits"], ["best"], axis=1),
            helper.make_node("Cast", ["best"], ["classes"], to=TensorProto.UINT8),
        ],
        "turns",
        [value("images", TensorProto.UINT8, ["n", 1])],
        [value("logits", TensorProto.FLOAT, ["n", 2]), value("classes", TensorProto.UINT8, ["n", 1])],
        [
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(np.array(1 + BEND / 2, np.float32), "slightly"),
        ],
    )
    model = to_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    inputs = samples(np.zeros((4, 1), np.uint8), name="images")
    plain, bent = (run_onnx(m, inputs, exact_qdq=True)["classes"] for m in (model, spread_module.bent(model, BEND)))
    assert (plain.dtype, plain.max(), bent.min()) == (np.uint8, 0, 1)
    assert spread_module.spread(model, inputs) == {"logits": pytest.approx(BEND, rel=0.1)}
