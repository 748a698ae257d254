from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import Index, infer, load, to_bytes
from dlx_deploy.graph.passes.half import float_tensors, half_precision
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.graph.quantization.rules import check_tensorrt_rules

from ...arrays import quantize_model, run_onnx, top1
from ...onnx_fixtures import Net, digits, exported, images, node

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def graph(nodes: list[onnx.NodeProto], *constants: tuple[str, np.ndarray], opset: int = 20) -> ModelProto:
    """``nodes`` from ``x`` to ``y``, both float32[2, 8]."""
    ends = [helper.make_tensor_value_info(name, FLOAT, [2, 8]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def kinds(model: ModelProto) -> dict[str, int]:
    """Tensor → element type, of a graph that the checker takes."""
    onnx.checker.check_model(model, full_check=True)
    return {name: info.dtype for name, info in infer(model).items()}


def test_everything_between_input_and_output_is_half() -> None:
    source = load(exported())
    half = half_precision(source, {})
    types = kinds(half)
    assert types["images"] == TensorProto.UINT8
    assert types["logits"] == FLOAT
    between = {name: kind for name, kind in types.items() if name not in ("images", "logits")}
    assert {kind for kind in between.values() if kind in (HALF, FLOAT)} == {HALF}
    assert [n.op_type for n in half.graph.node].count("Cast") == 2  # from uint8, and to the output
    assert check_tensorrt_rules(half) == []
    assert to_bytes(source) == exported()  # the original is as it was


def test_a_trained_network_keeps_its_accuracy() -> None:
    _, _, images, labels = digits()
    before = run_onnx(exported(), images, exact_qdq=False)
    after = run_onnx(to_bytes(half_precision(load(exported()), {})), images, exact_qdq=False)
    assert abs(top1(before, labels) - top1(after, labels)) < 0.005
    assert 0 < np.abs(before - after).max() < 0.01 * np.abs(before).max()


def test_int8_with_half_elsewhere(tmp_path: Path) -> None:
    train, _, images, labels = digits()
    (tmp_path / "m.onnx").write_bytes(exported(opset=20))
    report = quantize_model(
        tmp_path / "m.onnx", tmp_path / "q.onnx", train[:64], QuantizationRequest("tensorrt", half=True)
    )
    assert set(report.layers.values()) == {"int8"}
    model = load(tmp_path / "q.onnx")
    types = kinds(model)
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {types[n.input[1]] for n in pairs} == {HALF}
    index = Index(model)
    for n in model.graph.node:  # nothing stands between an INT8 layer and the dequantizers that it is fused with
        if n.op_type in ("Conv", "Gemm"):
            assert index.made_by(n.input[0], "DequantizeLinear"), n.name
            assert index.made_by(n.input[1], "DequantizeLinear"), n.name
    after = run_onnx(tmp_path / "q.onnx", images, exact_qdq=True)
    assert top1(after, labels) > top1(run_onnx(exported(), images, exact_qdq=False), labels) - 0.01


def test_excluded_layers_become_half(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(exported(opset=20))
    plan = QuantizationRequest("tensorrt", half=True, exclude=("0/Conv",))
    report = quantize_model(tmp_path / "m.onnx", tmp_path / "q.onnx", digits()[0][:32], plan)
    assert report.layers["0/Conv"] == "fp16"


@pytest.mark.parametrize(("reach", "shrunk"), [(3e5, 1), (1e9, 1), (3e5, 300)])
def test_int8_of_what_half_does_not_hold_stays_finite(reach: float, shrunk: float, tmp_path: Path) -> None:
    """The input of a convolution, and but where its weights are ``shrunk`` its output as well."""
    net = Net(opset=20)
    net.constant("much", np.array(reach, np.float32))
    net.constant("little", np.array(shrunk / reach, np.float32))
    conv = net.conv("conv", net.add("large", "Mul", net.planes(), "much"), 1, 4)
    (weight,) = (one for one in net.constants if one.name == "conv.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) / np.float32(shrunk), "conv.weight"))
    path = tmp_path / "m.onnx"
    path.write_bytes(net.head(net.add("small", "Mul", conv, "little"), 4).SerializeToString())
    report = quantize_model(path, tmp_path / "q.onnx", images(16), QuantizationRequest("tensorrt", half=True))
    assert set(report.layers.values()) == {"int8"}
    expected = run_onnx(path, images(8), exact_qdq=False)
    for exact in (True, False):
        np.testing.assert_allclose(run_onnx(tmp_path / "q.onnx", images(8), exact_qdq=exact), expected, atol=0.05)
    types = kinds(load(tmp_path / "q.onnx"))
    assert (types["large/dequantized"], types["flat/dequantized"]) == (FLOAT, HALF)


def test_a_sum_in_float32_has_its_convolution_in_float32_as_well(tmp_path: Path) -> None:
    net = Net(opset=20)
    net.constant("much", np.array(9000, np.float32))
    start = net.add("large", "Mul", net.planes(), "much")
    net.constant("little", np.array(1e-3, np.float32))
    net.conv("conv", net.add("small", "Mul", start, "little"), 1, 1)
    path = tmp_path / "m.onnx"
    path.write_bytes(net.head(net.add("sum", "Add", "conv", start), 1).SerializeToString())
    quantize_model(path, tmp_path / "q.onnx", images(16), QuantizationRequest("tensorrt", half=True))
    model = load(tmp_path / "q.onnx")
    assert check_tensorrt_rules(model) == []
    assert kinds(model)["conv"] == FLOAT
    assert Index(model).made_by(next(n for n in model.graph.node if n.name == "sum/Add").input[0], "Conv")


@pytest.mark.parametrize("op", ["Pow", "ReduceMean"])
def test_powers_and_sums_stay_in_float32(op: str) -> None:
    constant = ("c", np.array(2.0, np.float32)) if op == "Pow" else ("c", np.array([1], np.int64))
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="a"),
        helper.make_node(op, ["a", "c"], ["b"], name="b"),
        helper.make_node("Add", ["x", "b"], ["y"], name="y"),
    ]
    types = kinds(half_precision(graph(nodes, constant), {}))
    assert (types["a"], types["b"], types["b/fp16"], types["y"]) == (HALF, FLOAT, HALF, FLOAT)


def test_what_comes_near_the_largest_half_stays_in_float32() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="a"), helper.make_node("Neg", ["a"], ["y"], name="y")]
    assert kinds(half_precision(graph(nodes), {"a": 8000.0}))["a"] == HALF
    assert kinds(half_precision(graph(nodes), {"a": 9000.0}))["a"] == FLOAT  # times 8 is over 65504


@pytest.mark.parametrize(("value", "kind"), [(1e-5, FLOAT), (1e5, FLOAT), (0.0, HALF), (1e-3, HALF)])
def test_numbers_that_half_cannot_hold(value: float, kind: int) -> None:
    nodes = [helper.make_node("Add", ["x", "c"], ["a"], name="a"), helper.make_node("Relu", ["a"], ["y"], name="y")]
    assert kinds(half_precision(graph(nodes, ("c", np.array(value, np.float32))), {}))["a"] == kind


def test_a_constant_with_readers_of_both_kinds_is_kept_twice() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "c"], ["a"], name="a"),
        helper.make_node("Pow", ["a", "c"], ["y"], name="y"),
    ]
    half = half_precision(graph(nodes, ("c", np.full(8, 2.0, np.float32))), {})
    kinds(half)
    assert sorted(t.name for t in half.graph.initializer) == ["c", "c/fp16"]


def test_inputs_that_have_no_half_form_stay_as_they_are() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"], name="r"),
        helper.make_node("Resize", ["r", "", "scales"], ["s"], name="s", mode="nearest"),
        helper.make_node("Reshape", ["s", "back"], ["y"], name="y"),
    ]
    constants = [
        ("shape", np.array([1, 2, 2, 4], np.int64)),
        ("scales", np.ones(4, np.float32)),
        ("back", np.array([2, 8], np.int64)),
    ]
    half = half_precision(graph(nodes, *constants), {})
    types = kinds(half)
    assert (types["s"], types["scales"]) == (HALF, FLOAT)
    assert node(half, "s").input[2] == "scales"


def test_before_opset_19_quantizers_stay_in_float32(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(exported(opset=17))
    quantize_model(tmp_path / "m.onnx", tmp_path / "q.onnx", digits()[0][:32], QuantizationRequest("tensorrt"))
    half = half_precision(load(tmp_path / "q.onnx"), {})
    types = kinds(half)
    assert {types[n.output[0]] for n in half.graph.node if n.op_type == "DequantizeLinear"} == {FLOAT}


def test_control_flow_is_refused() -> None:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["z"])], "inner", [], [helper.make_tensor_value_info("z", FLOAT, [2, 8])]
    )
    nodes = [helper.make_node("If", ["c"], ["y"], name="choice", then_branch=inner, else_branch=inner)]
    with pytest.raises(StageFailed, match=r"If \(node 'choice'\) holds a graph of its own.*'fp32'"):
        half_precision(graph(nodes, ("c", np.array(True))), {})


def test_float_tensors_are_those_computed() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Shape", ["a"], ["s"]),
        helper.make_node("Neg", ["a"], ["y"]),
    ]
    assert float_tensors(graph(nodes)) == ["a", "y"]
