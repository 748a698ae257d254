from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import Index, infer, load, opset, to_bytes
from dlx_deploy.graph.passes.base import run_passes
from dlx_deploy.graph.passes.nbits import DOMAIN, as_matmul_nbits
from dlx_deploy.graph.quantization.blocks import int4_tensor
from dlx_deploy.runtime.backends.session import open_session

from ...onnx_fixtures import node

RANDOM = np.random.default_rng(0)


def blocked(operator: str, transposed: int = 0, bias: bool = False) -> ModelProto:
    """One layer of 64 inputs and 6 outputs on INT4 weights in blocks of 32."""
    shape, axis = ((6, 64), 1) if transposed else ((64, 6), 0)
    steps = RANDOM.integers(-8, 8, shape).astype(np.int8)
    scales = RANDOM.uniform(0.01, 0.1, (6, 2) if transposed else (2, 6)).astype(np.float32)
    constants = [int4_tensor(steps, "w"), numpy_helper.from_array(scales, "s")]
    inputs, more = ["x", "restored"], {"transB": transposed} if operator == "Gemm" else {}
    if bias:
        inputs.append("b")
        constants.append(numpy_helper.from_array(RANDOM.normal(0, 1, 6).astype(np.float32), "b"))
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["restored"], name="restore", axis=axis, block_size=32),
        helper.make_node(operator, inputs, ["y"], name="layer", **more),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 64), ("y", 6))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(
    ("operator", "transposed", "bias"), [("MatMul", 0, False), ("Gemm", 0, True), ("Gemm", 1, True)]
)
def test_the_kernel_computes_what_the_blocks_say(operator: str, transposed: int, bias: bool) -> None:
    model = blocked(operator, transposed, bias)
    x = RANDOM.normal(0, 1, (5, 64)).astype(np.float32)
    (wanted,) = open_session(to_bytes(model), exact_qdq=True).run(None, {"x": x})
    made = run_passes(load(model), [as_matmul_nbits(20)], "net.onnx")
    assert [(entry.domain, entry.version) for entry in made.opset_import] == [("", 20), (DOMAIN, 1)]
    assert opset(made) == 20
    layer = node(made, "layer")
    assert (layer.op_type, layer.domain) == ("MatMulNBits", DOMAIN)
    assert {a.name: a.i for a in layer.attribute} == {
        "K": 64, "N": 6, "bits": 4, "block_size": 32, "accuracy_level": 1
    }  # fmt: skip
    assert Index(made).array("w/nbits").shape == (6, 2, 16)
    (found,) = open_session(to_bytes(made), exact_qdq=False).run(None, {"x": x})
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert infer(made, batch=3)["y"].shape == (3, 6)


def test_int4_that_no_kernel_reads_is_not_left_over() -> None:
    model = blocked("MatMul")
    model.graph.node[1].input[:] = ["restored", "x"]
    with pytest.raises(StageFailed, match="the graph breaks what the pass 'matmul-nbits' ensures: w is INT4"):
        run_passes(model, [as_matmul_nbits(20)], "net.onnx")


def test_a_graph_without_int4_stays_as_it_is() -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    assert to_bytes(run_passes(load(model), [as_matmul_nbits(20)], "net.onnx")) == to_bytes(model)
