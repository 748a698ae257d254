"""INT8 layers on integers: the sums are exact, so no order of adding and no version of ONNX Runtime changes a logit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.runtime.backends.exact import exact_model
from dlx_deploy.runtime.backends.exact_int8 import LONGEST, integer_sums
from dlx_deploy.runtime.backends.session import open_session

FLOAT, HALF = np.float32, np.float16
RANDOM = np.random.default_rng(0)


class Chain:
    """A graph of quantized layers, node by node, from float32 ``x``."""

    def __init__(self, shape: list[Any], half: bool = False) -> None:
        self.shape, self.dtype = shape, HALF if half else FLOAT
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.last = "x"
        if half:
            self._add("Cast", [self.last], "x16", to=TensorProto.FLOAT16)

    def _add(self, operator: str, inputs: list[str], out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [out], name=f"{out}/{operator}", **attributes))
        self.last = out
        return out

    def _constant(self, name: str, values: np.ndarray) -> str:
        self.constants[name] = values
        return name

    def quantized(self, scale: float = 0.05, zero: int = 0) -> str:
        name = self.last
        pair = [self._constant(f"{name}/scale", np.asarray(scale, self.dtype))]
        pair.append(self._constant(f"{name}/zero_point", np.asarray(zero, np.int8)))
        self._add("QuantizeLinear", [name, *pair], f"{name}/quantized")
        return self._add("DequantizeLinear", [self.last, *pair], f"{name}/dequantized")

    def layer(
        self, operator: str, out: str, weight: np.ndarray, axis: int, bias: bool = True, **attributes: Any
    ) -> None:
        channels = weight.shape[axis]
        steps = self._constant(f"{out}.w/quantized", weight)
        scale = self._constant(f"{out}.w/scale", RANDOM.uniform(0.001, 0.02, channels).astype(self.dtype))
        zero = self._constant(f"{out}.w/zero_point", np.zeros(channels, np.int8))
        x = self.last
        w = self._add("DequantizeLinear", [steps, scale, zero], f"{out}.w/dequantized", axis=axis)
        extra = [self._constant(f"{out}.b", RANDOM.normal(size=channels).astype(self.dtype))] if bias else []
        self._add(operator, [x, w, *extra], out, **attributes)

    def model(self, rank: int) -> ModelProto:
        if self.dtype == HALF:
            self._add("Cast", [self.last], "y", to=TensorProto.FLOAT)
        shape = [None] * rank
        graph = helper.make_graph(
            self.nodes,
            "chain",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(v, k) for k, v in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def steps(*shape: int) -> np.ndarray:
    return RANDOM.integers(-127, 128, shape).astype(np.int8)


def convolutions(half: bool = False, **attributes: Any) -> ModelProto:
    chain = Chain(["n", 4, 9, 9], half)
    chain.quantized()
    chain.layer("Conv", "c1", steps(16, 4, 3, 3), 0, pads=[1] * 4)
    chain._add("Relu", ["c1"], "r1")
    chain.quantized(0.02)
    chain.layer("Conv", "c2", steps(16, 16 // attributes.get("group", 1), 3, 3), 0, bias=not half, **attributes)
    return chain.model(4)


def gemm(**attributes: Any) -> ModelProto:
    chain = Chain(["n", 300])
    chain.quantized()
    transposed = bool(attributes.get("transB"))
    chain.layer("Gemm", "y", steps(8, 300) if transposed else steps(300, 8), 0 if transposed else 1, **attributes)
    return chain.model(2)


def matmul(half: bool = False) -> ModelProto:
    chain = Chain(["n", 5, 64], half)
    chain.quantized()
    chain.layer("MatMul", "m", steps(64, 12), 1, bias=False)
    return chain.model(3)


MODELS = [convolutions(), convolutions(True), convolutions(group=16), convolutions(strides=[2, 2], dilations=[2, 2])]
MODELS += [gemm(), gemm(transB=1), gemm(alpha=1.0, beta=1.0), matmul(), matmul(True)]


def inputs_of(model: ModelProto, count: int = 7) -> np.ndarray:
    dims = model.graph.input[0].type.tensor_type.shape.dim[1:]
    return RANDOM.normal(0, 2, (count, *(d.dim_value for d in dims))).astype(np.float32)


def run(data: bytes, x: np.ndarray, level: Any = None) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.graph_optimization_level = level or onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_sums_changes_nothing(model: ModelProto) -> None:
    data, x = exact_model(model.SerializeToString()), inputs_of(model)
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    answer = open_session(model.SerializeToString(), exact_qdq=True, threads=1).run(None, {"x": x})[0]
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_ALL):
        np.testing.assert_array_equal(run(data, x, level), answer)
    alone = np.concatenate([run(data, row[None]) for row in x])
    np.testing.assert_array_equal(alone, answer)


@pytest.mark.parametrize("model", MODELS)
def test_it_computes_what_the_graph_says(model: ModelProto) -> None:
    data, x = model.SerializeToString(), inputs_of(model)
    changed = onnx.load_model_from_string(integer_sums(data))
    sums = [node for node in changed.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert all(name.endswith("/exact/integers") for node in sums for name in node.input)
    expected = run(data, x)
    difference = np.abs(open_session(data, exact_qdq=True).run(None, {"x": x})[0] - expected)
    # A step of the second quantizer here and there, and float16's last bit; a wrong scale or bias would be far off.
    assert difference.max() < 0.02 * np.abs(expected).max()
    assert difference.mean() < 0.001 * np.abs(expected).max()


def test_against_int32_accumulators() -> None:
    model = gemm(transB=1)
    x = inputs_of(model)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    integers = np.rint(x / np.float32(0.05)).clip(-128, 127).astype(np.int32)
    sums = integers @ constants["y.w/quantized"].astype(np.int32).T
    scale = np.float32(0.05) * constants["y.w/scale"]
    expected = sums.astype(np.float32) * scale + constants["y.b"]
    answer = open_session(model.SerializeToString(), exact_qdq=True).run(None, {"x": x})[0]
    np.testing.assert_array_equal(answer, expected)


def test_pairs_and_weights_that_nothing_reads_any_more_are_left_out() -> None:
    changed = onnx.load_model_from_string(integer_sums(convolutions().SerializeToString()))
    assert "DequantizeLinear" not in {node.op_type for node in changed.graph.node}
    read = {name for node in changed.graph.node for name in node.input}
    assert {t.name for t in changed.graph.initializer} <= read


def test_a_pair_that_something_else_reads_stays() -> None:
    chain = Chain(["n", 4, 9, 9])
    pair = chain.quantized()
    chain.layer("Conv", "c", steps(4, 4, 3, 3), 0, pads=[1] * 4)
    chain._add("Add", ["c", pair], "sum")
    model = chain.model(4)
    changed = onnx.load_model_from_string(integer_sums(model.SerializeToString()))
    assert [n.output[0] for n in changed.graph.node if n.op_type == "DequantizeLinear"] == [pair]
    x = inputs_of(model)
    expected = run(model.SerializeToString(), x)
    np.testing.assert_allclose(run(changed.SerializeToString(), x), expected, rtol=1e-5, atol=1e-4)


def unlike(change: str) -> ModelProto:
    """A layer that is not of the form: it must stay as it is."""
    if change == "zero point":
        chain = Chain(["n", 64])
        chain.quantized(zero=3)
        chain.layer("MatMul", "y", steps(64, 5), 1, bias=False)
        return chain.model(2)
    if change == "factor":
        return gemm(alpha=0.5)
    if change == "length":
        long = Chain(["n", LONGEST + 1])
        long.quantized()
        long.layer("MatMul", "y", steps(LONGEST + 1, 1), 1, bias=False)
        return long.model(2)
    model = gemm()
    if change == "axis":
        square = Chain(["n", 8])
        square.quantized()
        square.layer("MatMul", "y", steps(8, 8), 0, bias=False)
        return square.model(2)
    bias = next(node for node in model.graph.node if node.op_type == "Gemm")
    model.graph.node.insert(0, helper.make_node("Neg", [bias.input[2]], ["computed"]))
    bias.input[2] = "computed"
    return model


@pytest.mark.parametrize("change", ["zero point", "factor", "axis", "length", "computed bias"])
def test_layers_of_another_form_stay(change: str) -> None:
    data = unlike(change).SerializeToString()
    assert integer_sums(data) is data


def test_control_flow_leaves_all_as_it_is() -> None:
    model = matmul()
    empty = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "inner",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["other"], then_branch=empty, else_branch=empty))
    data = model.SerializeToString()
    assert integer_sums(data) is data
