"""Graphs in half precision as ONNX Runtime is given them: float32, rounded to float16 where they say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, defs, helper, numpy_helper

from dlx_deploy.runtime.backends.exact import exact_model
from dlx_deploy.runtime.backends.exact_half import CONSTANTS, FOLLOWS, KEEPS, OTHER_TYPE, float32_twin
from dlx_deploy.runtime.backends.session import open_session
from dlx_deploy.runtime.errors import PackageError

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
OWN_RULE = {"Cast", *CONSTANTS}
NOT_IN_A_CLASSIFIER = {
    *("Bernoulli", "BitCast", "EyeLike", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix", "If", "Loop", "Scan", "QLinearMatMul"),
    *("ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement", "SequenceAt", "SequenceConstruct"),
    *("SequenceInsert", "SequenceMap", "SplitToSequence"),
}
"""Random numbers, windows of signals, control flow and sequences."""


def model(nodes: list[Any], constants: dict[str, Any], opset: int = 20, **outputs: int) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 4])],
        [
            helper.make_tensor_value_info(name, kind, ["n", "k"] if kind == FLOAT else ["n"])
            for name, kind in (outputs or {"y": FLOAT}).items()
        ],
        [v if isinstance(v, TensorProto) else numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], to=to)


def run(graph: ModelProto, x: np.ndarray) -> np.ndarray:
    return np.asarray(open_session(graph.SerializeToString(), exact_qdq=True, threads=1).run(None, {"x": x})[0])


def quantizer() -> ModelProto:
    """x → float16 → Q/DQ → y, with a scale for which quotients in float16 come out on other integers."""
    names = ["s", "z"]
    nodes = [
        cast("x", "h", HALF),
        helper.make_node("QuantizeLinear", ["h", *names], ["q"]),
        helper.make_node("DequantizeLinear", ["q", *names], ["d"]),
        cast("d", "y", FLOAT),
    ]
    return model(nodes, {"s": np.float16(0.0123), "z": np.int8(0)})


def test_a_quantizer_divides_in_float32() -> None:
    x = np.random.default_rng(0).uniform(-1.7, 1.7, (500, 4)).astype(np.float16)
    scale = np.float16(0.0123)
    steps = np.rint(x.astype(np.float32) / np.float32(scale)).clip(-128, 127)
    assert (np.rint((x / scale).astype(np.float32)).clip(-128, 127) != steps).any(), "the values would show nothing"
    expected = (steps.astype(np.float32) * np.float32(scale)).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(run(quantizer(), x.astype(np.float32)), expected)


def test_each_operation_is_rounded_once() -> None:
    rng = np.random.default_rng(1)
    w, b = rng.normal(size=(4, 6)).astype(np.float16), rng.normal(size=6).astype(np.float16)
    nodes = [
        cast("x", "h", HALF),
        helper.make_node("MatMul", ["h", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["g"]),
        helper.make_node("Transpose", ["g"], ["t"], perm=[0, 1]),
        cast("t", "y", FLOAT),
    ]
    x = rng.normal(size=(50, 4)).astype(np.float32)

    def half(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float16).astype(np.float32)

    summed = half(half(x) @ w.astype(np.float32))
    expected = half(1 / (1 + np.exp(-half(summed + b.astype(np.float32)))))
    answer = run(model(nodes, {"w": w, "b": b}), x)
    assert (answer != expected).mean() < 0.02  # a sum in another order may fall on the next float16
    np.testing.assert_allclose(answer, expected, rtol=2**-9)
    np.testing.assert_array_equal(answer, half(answer))


def test_overflow_stays_visible() -> None:
    nodes = [cast("x", "h", HALF), helper.make_node("Mul", ["h", "h"], ["m"]), cast("m", "y", FLOAT)]
    answer = run(model(nodes, {}), np.full((1, 4), 300, np.float32))
    assert np.isposinf(answer).all()


def test_constants_in_nodes_and_old_tensors() -> None:
    stored = helper.make_tensor("w", HALF, [4], [1.0, 2.0, 0.1, -3.0])
    assert not stored.raw_data, "this helper writes int32_data"
    value = numpy_helper.from_array(np.asarray([0.1] * 4, np.float16))
    nodes = [
        cast("x", "h", HALF),
        helper.make_node("Constant", [], ["c"], value=value),
        helper.make_node("ConstantOfShape", ["four"], ["e"], value=numpy_helper.from_array(np.ones(1, np.float16))),
        helper.make_node("Add", ["h", "w"], ["a"]),
        helper.make_node("Mul", ["a", "c"], ["m"]),
        helper.make_node("Mul", ["m", "e"], ["k"]),
        helper.make_node("ArgMax", ["k"], ["best"], axis=1, keepdims=0),
        helper.make_node("Greater", ["k", "c"], ["more"]),
        helper.make_node("Where", ["more", "k", "c"], ["chosen"]),
        cast("chosen", "y", FLOAT),
    ]
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    graph = model(nodes, {"w": stored, "four": np.array([4])}, y=FLOAT, best=TensorProto.INT64)
    values, best = open_session(graph.SerializeToString(), exact_qdq=True).run(None, {"x": x})
    added = (x.astype(np.float16) + numpy_helper.to_array(stored)).astype(np.float16)
    expected = np.maximum((added * np.float16(0.1)).astype(np.float16), np.float16(0.1)).astype(np.float32)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(best, expected.argmax(axis=1))


def test_the_twin_is_a_valid_model_without_half_tensors() -> None:
    twin = onnx.load_model_from_string(float32_twin(quantizer().SerializeToString()))
    onnx.checker.check_model(twin, full_check=True)
    assert {t.data_type for t in twin.graph.initializer} == {FLOAT, TensorProto.INT8}
    inferred = onnx.shape_inference.infer_shapes(twin, strict_mode=True).graph
    halves = {v.name for v in inferred.value_info if v.type.tensor_type.elem_type == HALF}
    assert halves == {"h/exact/half", "d/exact/half"}


def test_a_graph_without_float16_is_left_alone() -> None:
    data = model([helper.make_node("Relu", ["x"], ["y"])], {}).SerializeToString()
    assert float32_twin(data) is data


@pytest.mark.parametrize("data", [b"not a model", quantizer().SerializeToString()[:-9]])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(PackageError, match=r"the model is no ONNX model \(.+\); copy or build the package again"):
        open_session(data, exact_qdq=True)


def test_a_number_where_a_message_belongs() -> None:
    with pytest.raises(PackageError, match="field 7 is a number where a message belongs"):
        exact_model(b"\x38\x01")


def test_half_tensors_of_a_wrong_size_are_refused() -> None:
    broken = quantizer()
    broken.graph.initializer[0].raw_data += b"\x00"
    with pytest.raises(PackageError, match="the tensor 's' has 3 bytes of 2 each"):
        exact_model(broken.SerializeToString())


def test_control_flow_among_float16_is_refused() -> None:
    branch = helper.make_graph([], "then", [], [helper.make_tensor_value_info("h", HALF, None)])
    nodes = [
        cast("x", "h", HALF),
        helper.make_node("If", ["yes"], ["k"], then_branch=branch, else_branch=branch),
        cast("k", "y", FLOAT),
    ]
    with pytest.raises(PackageError, match="the model's If holds a graph of its own, beside float16"):
        float32_twin(model(nodes, {"yes": np.array(True)}).SerializeToString())


def operators() -> list[Any]:
    """Every operator of ONNX, each version from opset 13 to 25."""
    current = {s.name: defs.get_schema(s.name, 13) for s in defs.get_all_schemas() if s.domain == "" and _in(s, 13)}
    newer = [s for s in defs.get_all_schemas_with_history() if s.domain == "" and 13 < s.since_version <= 25]
    return [s for s in [*current.values(), *newer] if not s.deprecated and s.name not in NOT_IN_A_CLASSIFIER]


def _in(schema: Any, opset: int) -> bool:
    return any(s.name == schema.name and s.since_version <= opset for s in defs.get_all_schemas_with_history())


def _allows(schema: Any, parameter: Any) -> bool:
    types = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    return "tensor(float16)" in types.get(parameter.type_str, [parameter.type_str])


@pytest.mark.parametrize("schema", operators(), ids=lambda s: f"{s.name}-{s.since_version}")
def test_the_types_of_outputs_are_those_of_onnx(schema: Any) -> None:
    """The table of exceptions is complete: ONNX's own schemas say which input an output's type follows."""
    if schema.name in OWN_RULE or not any(_allows(schema, p) for p in [*schema.inputs, *schema.outputs]):
        return
    source = FOLLOWS.get(schema.name, 0)
    if not _allows(schema, schema.inputs[source]):
        assert not any(_allows(schema, p) for p in schema.outputs)
        return
    own = OTHER_TYPE.get(schema.name, len(schema.outputs))
    kind = schema.inputs[source].type_str
    for parameter in schema.outputs[:own]:
        assert parameter.type_str in (kind, *_SAME.get(schema.name, ())), parameter.name
    for parameter in schema.outputs[own:]:
        assert parameter.type_str != kind or not _allows(schema, parameter), parameter.name


_SAME = {
    "Attention": ("T2",),
    "BatchNormalization": ("T2", "U"),
    "DequantizeLinear": ("T3",),
}
"""Type parameters of their own that have the same type in a graph of ours, or follow the same input."""


def test_operators_that_keep_numbers_compute_none() -> None:
    assert KEEPS.isdisjoint(
        {"Add", "Mul", "Conv", "Gemm", "MatMul", "Softmax", "DequantizeLinear", "Cast", "AveragePool"}
    )
