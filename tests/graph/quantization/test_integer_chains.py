"""Operators between layers that pass integers on, where their kernels were timed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from msgspec.structs import replace
from onnx import ModelProto

from dlx_deploy.graph.model import Index, load, to_bytes
from dlx_deploy.graph.quantization.gates import clips_to_unit
from dlx_deploy.graph.quantization.layers import image_layers, quantizable
from dlx_deploy.graph.quantization.placement import Pair, Placement, place
from dlx_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan, TensorPlan
from dlx_deploy.graph.quantization.quantize import QuantizationReport, QuantizationRequest, quantize_model
from dlx_deploy.graph.samples import Samples
from dlx_deploy.runtime.untyped import Array
from dlx_deploy.targets.kernels import NOT_MEASURED, IntegerKernels

from ...onnx_fixtures import Net, images, op_types

ALL = IntegerKernels(
    operators=frozenset(
        ("Add", "Concat", "DepthToSpace", "HardSigmoid", "HardSwish", "Mul", "Resize", "Sigmoid", "Slice", "Split")
    )
)


def mobile_net() -> ModelProto:
    """conv → HardSwish → squeeze and excitation → conv → SiLU → resize, joined with the convolution → head."""
    net = Net(opset=20)
    x = net.add("swish", "HardSwish", net.conv("a", net.planes(), 1, 8))
    net.add("mean", "GlobalAveragePool", x)
    net.add("relu", "Relu", net.conv("squeeze", "mean", 8, 4, kernel=1))
    net.conv("excite", "relu", 4, 8, kernel=1)
    net.add("gate", "HardSigmoid", "excite", alpha=1 / 6, beta=0.5)
    net.conv("b", net.add("scaled_x", "Mul", "gate", x), 8, 8, strides=[2, 2])
    net.add("sigmoid", "Sigmoid", "b")
    net.add("silu", "Mul", "b", "sigmoid")
    net.constant("factors", np.array([1, 1, 2, 2], np.float32))
    net.add("large", "Resize", "silu", "", "factors", mode="nearest")
    net.conv("c", net.add("joined", "Concat", "large", "scaled_x", axis=1), 16, 8)
    return net.head("c", 8)


def placed(model: ModelProto, kernels: IntegerKernels = ALL, skipped: tuple[str, ...] = ()) -> Placement:
    return place(model, "kernels", quantizable(Index(model), set()), skipped, kernels=kernels)


def written(
    model: ModelProto, tmp_path: Path, given: QuantizationPlan | None = None, kernels: IntegerKernels = ALL
) -> tuple[ModelProto, QuantizationReport]:
    (tmp_path / "float32.onnx").write_bytes(to_bytes(model))
    request = QuantizationRequest("cpu", reduce_range=True, kernels=kernels)
    if given is not None:
        request = QuantizationRequest("cpu", reduce_range=True, kernels=kernels, given=given)
    report = quantize_model(tmp_path / "float32.onnx", tmp_path / "int8.onnx", Samples({"images": images(16)}), request)
    return load(tmp_path / "int8.onnx"), report


def answers(model: ModelProto, exact: bool = False, fused: Path | None = None) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if fused:
        options.optimized_model_filepath = str(fused)
    session = onnxruntime.InferenceSession(to_bytes(model), options, ["CPUExecutionProvider"])
    values: Array = session.run(None, {"images": images(16, seed=1)})[0]
    return values


def test_no_island_is_left_between_layers(tmp_path: Path) -> None:
    model, _ = written(mobile_net(), tmp_path)
    native = answers(model, fused=tmp_path / "fused.onnx")
    counts = Counter(op_types(onnx.load(tmp_path / "fused.onnx")))
    assert counts["QuantizeLinear"] == 1  # what the first convolution reads
    assert counts["DequantizeLinear"] == 0
    assert (counts["QLinearMul"], counts["QLinearSigmoid"], counts["QLinearConcat"]) == (3, 1, 1)
    assert (counts["QLinearAdd"], counts["QLinearGlobalAveragePool"]) == (2, 2)
    assert not {"HardSigmoid", "HardSwish", "Sigmoid", "Concat"} & set(counts)
    reference, by_the_book = answers(mobile_net()), answers(model, exact=True)
    assert np.abs(native - by_the_book).max() < 0.02 * np.abs(reference).max()
    assert np.abs(native - reference).max() < 0.1 * np.abs(reference).max()


def test_without_a_table_they_are_the_islands_of_before() -> None:
    placement = placed(mobile_net(), NOT_MEASURED)
    assert placement.gates == ()
    assert set(placement.pairs) == {
        "x",
        "a",
        "mean",
        "relu",
        "excite",
        "scaled_x",
        "b",
        "joined",
        "c",
        "pooled",
        "flat",
    }


def test_each_operator_waits_for_its_line_in_the_table() -> None:
    placement = placed(mobile_net(), IntegerKernels(operators=frozenset(("HardSwish", "Mul"))))
    assert placement.gates == ("swish/HardSwish",)
    assert not {"gate", "sigmoid", "silu", "large"} & set(placement.pairs)  # a product waits for all that it reads


def test_what_moves_values_shares_their_scale() -> None:
    assert placed(mobile_net()).pairs["large"] == Pair("large", like="silu")
    net = Net()
    net.conv("a", net.planes(), 1, 8)
    net.constant("sizes", np.array([4, 4], np.int64))
    net.nodes.append(onnx.helper.make_node("Split", ["a", "sizes"], ["left", "right"], name="cut/Split", axis=1))
    net.conv("b", net.add("turned", "Concat", "right", "left", axis=1), 8, 8)
    pairs = placed(net.head("b", 8)).pairs
    assert (pairs["left"], pairs["right"]) == (Pair("left", like="a"), Pair("right", like="a"))
    assert pairs["turned"].like == ""


def test_a_resize_that_interpolates_has_a_scale_of_its_own() -> None:
    model = mobile_net()
    resize = next(node for node in model.graph.node if node.op_type == "Resize")
    next(a for a in resize.attribute if a.name == "mode").s = b"linear"
    assert "large" not in placed(model).pairs
    linear = IntegerKernels(operators=ALL.operators | {"Resize:linear"})
    assert placed(model, linear).pairs["large"] == Pair("large")


def test_nothing_is_rounded_for_no_layer() -> None:
    net = Net()
    x = net.conv("b", net.conv("a", net.planes(), 1, 8), 8, 8)
    net.add("silu", "Mul", x, net.add("sigmoid", "Sigmoid", x))
    net.add("mean", "ReduceMean", "silu", axes=[2, 3], keepdims=0)
    net.weight("fc", 8, 10)
    net.add("logits", "Softmax", "mean")
    assert not {"sigmoid", "silu"} & set(placed(net.model(8)).pairs)


def test_an_answer_is_never_made_of_integers() -> None:
    """Not even where a layer reads it as well."""
    net = Net()
    net.conv("a", net.add("swish", "HardSwish", net.conv("first", net.planes(), 1, 8)), 8, 8)
    net.conv("b", net.add("logits", "HardSwish", "a"), 8, 8)
    net.conv("c", "b", 8, 8)
    placement = placed(net.model(8, (8, 8)))
    assert placement.gates == ("swish/HardSwish",)


def test_a_gate_stays_whole_where_the_plan_leaves_its_tensors() -> None:
    assert placed(mobile_net(), skipped=("swish",)).gates == ("gate/HardSigmoid",)
    assert placed(mobile_net(), skipped=("a",)).gates == ("gate/HardSigmoid",)


def test_a_falling_gate_stays_in_floating_point() -> None:
    model = mobile_net()
    gate = next(node for node in model.graph.node if node.op_type == "HardSigmoid")
    next(a for a in gate.attribute if a.name == "alpha").f = -0.2
    assert placed(model).gates == ("swish/HardSwish",)


@pytest.mark.parametrize("beta", [0.5, 0.0, -0.25])
def test_a_gate_clips_whatever_its_scale_is(beta: float, tmp_path: Path) -> None:
    """With a scale that reaches beyond 1 the quantizer behind it does not."""
    model = mobile_net()
    gate = next(node for node in model.graph.node if node.op_type == "HardSigmoid")
    next(a for a in gate.attribute if a.name == "beta").f = beta
    wide = QuantizationPlan(schema=1, tensors={"gate": TensorPlan(scale=0.01, zero_point=0)})
    assert not clips_to_unit(0.01, 0)
    assert clips_to_unit(float(np.float32(1 / 255)), 0)
    for given in (None, wide):
        changed, _ = written(model, tmp_path, given)
        assert ("Clip" in op_types(changed)) is (given is wide)
        shown = load(changed)
        entry = onnx.helper.make_tensor_value_info("gate_DequantizeLinear_Output", onnx.TensorProto.FLOAT, None)
        plain = load(model)
        plain.graph.output.insert(0, onnx.helper.make_tensor_value_info("gate", onnx.TensorProto.FLOAT, None))
        shown.graph.output.insert(0, entry)
        found, wanted = answers(shown, exact=True), answers(plain)
        assert np.abs(found - wanted).max() < 0.05
        assert found.min() >= 0


def test_a_plan_given_back_makes_the_same_bytes(tmp_path: Path) -> None:
    first, report = written(mobile_net(), tmp_path)
    second, _ = written(mobile_net(), tmp_path, report.plan)
    assert to_bytes(first) == to_bytes(second)


def test_the_first_convolution_of_an_image_stays_where_integers_lose(tmp_path: Path) -> None:
    kernels = replace(ALL, float_images=frozenset({(1, 3)}), least_side=8)
    model = mobile_net()
    assert image_layers(model, kernels) == {"a/Conv"}
    _, report = written(model, tmp_path, kernels=kernels)
    assert report.layers["a/Conv"] == "fp32"
    assert report.layers["b/Conv"] == "int8"
    forced = QuantizationPlan(schema=1, layers={"a/Conv": LayerPlan()})
    _, report = written(model, tmp_path, forced, kernels=kernels)
    assert report.layers["a/Conv"] == "int8"


@pytest.mark.parametrize(
    "kernels",
    [
        ALL,
        replace(ALL, float_images=frozenset({(1, 3)}), least_side=9),
        replace(ALL, float_images=frozenset({(1, 5), (3, 3)}), least_side=8),
    ],
    ids=["no such", "small image", "another kernel"],
)
def test_other_first_convolutions_are_layers_like_others(kernels: IntegerKernels) -> None:
    assert image_layers(mobile_net(), kernels) == set()


def test_a_network_of_one_convolution_keeps_its_only_layer() -> None:
    net = Net()
    net.conv("logits", net.planes(), 1, 8)
    kernels = replace(ALL, float_images=frozenset({(1, 3)}), least_side=8)
    assert image_layers(net.model(8, (8, 8)), kernels) == set()
