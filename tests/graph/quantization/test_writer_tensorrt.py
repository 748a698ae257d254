from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import ModelProto, numpy_helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index, int_attribute, to_bytes
from dlx_deploy.graph.quantization.layers import excluded, layer_precision, through_qdq
from dlx_deploy.graph.quantization.rules import check_tensorrt_rules
from dlx_deploy.graph.quantization.scheme import TENSORRT, TENSORRT_HALF

from ...onnx_fixtures import Net, node, op_types, residual_net, with_qdq


def quantized(model: ModelProto, exclude: tuple[str, ...] = (), bound: float = 2.0) -> ModelProto:
    return with_qdq(model, TENSORRT, (-bound, bound / 2), exclude)


def quantized_inputs(model: ModelProto, name: str) -> list[bool]:
    index = Index(model)
    return [through_qdq(index, x) is not None for x in node(model, name).input]


def test_activations_are_symmetric_int8_with_one_scale() -> None:
    model = quantized(residual_net())
    index = Index(model)
    pairs = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert [pair.input[0] for pair in pairs] == ["x", "relu1", "relu2", "flat"]
    for pair in pairs:
        assert index.array(pair.input[1]) == np.float32(2 / 127)
        assert index.array(pair.input[2]).dtype == np.int8
        assert index.array(pair.input[2]) == 0


def test_weights_are_folded_per_output_channel() -> None:
    before, model = Index(residual_net()), quantized(residual_net())
    index = Index(model)
    for layer, axis in (("conv2/Conv", 0), ("logits/Gemm", 0)):
        dequantize = index.made_by(node(model, layer).input[1], "DequantizeLinear")
        assert dequantize is not None
        steps, scale, zero = (index.array(name) for name in dequantize.input)
        weight = before.array(dequantize.input[0].removesuffix("/quantized"))
        assert (steps.dtype, int_attribute(dequantize, "axis", -1), zero.any()) == (np.int8, axis, False)
        assert scale.shape == (weight.shape[0],)
        shape = (-1,) + (1,) * (weight.ndim - 1)
        assert np.abs(steps).reshape(len(scale), -1).max(axis=1).tolist() == [127] * len(scale)
        assert (np.abs(steps * scale.reshape(shape) - weight) <= 0.5001 * scale.reshape(shape)).all()
    assert not {"conv2.weight", "fc.weight"} & set(index.initializers)
    assert index.initializers["conv2.bias"].data_type == onnx.TensorProto.FLOAT


def test_one_pair_serves_all_readers() -> None:
    model = quantized(residual_net())
    readers = [n.name for n in Index(model).readers("relu1/dequantized")]
    assert readers == ["conv2/Conv", "sum/Add"]
    assert [n.op_type for n in Index(model).readers("relu1")] == ["QuantizeLinear"]


def test_the_identity_of_a_sum_is_quantized_and_the_main_branch_is_not() -> None:
    assert quantized_inputs(quantized(residual_net()), "sum/Add") == [False, True]


@pytest.mark.parametrize("shortcut_first", [False, True])
def test_a_convolution_in_the_shortcut_is_quantized_behind(shortcut_first: bool) -> None:
    model = quantized(residual_net("conv", shortcut_first))
    add = node(model, "sum/Add")
    assert "conv3" in add.input
    assert "short/dequantized" in add.input
    assert quantized_inputs(model, "short/Conv")[0]


def test_of_two_equal_branches_the_second_is_the_identity() -> None:
    net = Net()
    x = net.planes()
    model = quantized(net.head(net.add("sum", "Add", net.conv("a", x, 1, 8), net.conv("b", x, 1, 8)), 8))
    assert list(node(model, "sum/Add").input) == ["a", "b/dequantized"]


def test_sums_without_a_convolution_stay() -> None:
    net = Net()
    x = net.add("r", "Relu", net.conv("a", net.planes(), 1, 8))
    both = net.add("both", "Add", x, net.add("s", "Sigmoid", x))
    model = quantized(net.head(net.add("double", "Add", both, both), 8))
    assert quantized_inputs(model, "both/Add") == [False, False]
    assert quantized_inputs(model, "double/Add") == [False, False]


def test_gates_and_attention_stay_in_floating_point() -> None:
    net = Net()
    x = net.conv("a", net.planes(), 1, 8)
    gated = net.add("gated", "Mul", x, net.add("gate", "Sigmoid", x))
    net.constant("shape", np.array([0, 8, 64]))
    tokens = net.add("tokens", "Transpose", net.add("rows", "Reshape", gated, "shape"), perm=[0, 2, 1])
    net.weight("q.weight", 8, 8)
    q = net.add("q", "MatMul", tokens, "q.weight")
    scores = net.add("scores", "MatMul", q, net.add("k", "Transpose", q, perm=[0, 2, 1]))
    mixed = net.add("mixed", "MatMul", net.add("soft", "Softmax", scores, axis=-1), q)
    pooled = net.add("mean", "ReduceMean", mixed, axes=[1], keepdims=0)
    net.weight("fc.weight", 8, 10)
    net.weight("fc.bias", 10)
    net.add("logits", "Gemm", pooled, "fc.weight", "fc.bias")
    model = quantized(net.model())
    assert quantized_inputs(model, "q/MatMul") == [True, True]
    for name in ("scores/MatMul", "mixed/MatMul", "gated/Mul", "soft/Softmax"):
        assert not any(quantized_inputs(model, name)), name
    index = Index(model)
    axes = {w: int_attribute(node(model, f"{w}/axis1/DequantizeLinear"), "axis", -1) for w in ("q.weight", "fc.weight")}
    assert axes == {"q.weight": 1, "fc.weight": 1}
    assert index.array("fc.weight/axis1/scale").shape == (10,)
    assert layer_precision(model) == {"a/Conv": "int8", "q/MatMul": "int8", "logits/Gemm": "int8"}


def test_excluded_layers_keep_their_weights() -> None:
    model = quantized(residual_net(), ("conv2/*", "log*"))
    assert layer_precision(model) == {
        "conv1/Conv": "int8", "conv2/Conv": "fp32", "conv3/Conv": "int8", "logits/Gemm": "fp32"
    }  # fmt: skip
    assert "conv2.weight" in Index(model).initializers
    assert quantized_inputs(model, "sum/Add") == [False, True]
    assert quantized_inputs(quantized(residual_net(), ("conv3/Conv",)), "sum/Add") == [False, False]
    assert quantized_inputs(quantized(residual_net(), ("sum/Add",)), "sum/Add") == [False, False]


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'conv9\*' matches no node of the graph; the nearest: conv3, conv2, conv1"):
        excluded(residual_net(), ["conv9*"])


def test_a_weight_that_layers_share_is_stored_once() -> None:
    model = quantized(_shared())
    assert sum(t.name.startswith("b.weight") for t in model.graph.initializer) == 3
    assert node(model, "b/Conv").input[1] == node(model, "c/Conv").input[1]
    partly = quantized(_shared(), ("c/Conv",))
    assert node(partly, "c/Conv").input[1] == "b.weight"
    assert node(partly, "b/Conv").input[1] == "b.weight/dequantized"


def _shared() -> ModelProto:
    net = Net()
    net.conv("b", net.conv("a", net.planes(), 1, 8), 8, 8)
    net.add("c", "Conv", "b", "b.weight", "b.bias", pads=[1, 1, 1, 1])
    return net.head("c", 8)


def test_ranges_and_channels_of_nothing_but_zeros() -> None:
    model = residual_net()
    weight = Index(model).array("conv2.weight").copy()
    weight[3] = 0
    Index(model).initializers["conv2.weight"].CopyFrom(numpy_helper.from_array(weight, "conv2.weight"))
    index = Index(quantized(model, bound=0.0))
    scales = [index.array(name) for name in index.initializers if name.endswith("/scale")]
    assert all((scale > 0).all() and np.isfinite(scale).all() for scale in scales)
    assert not index.array("conv2.weight/quantized")[3].any()


@pytest.mark.parametrize("half", [False, True])
def test_scales_too_small_for_half_precision_are_the_smallest_that_keep_their_bits(half: bool) -> None:
    index = Index(with_qdq(residual_net(), TENSORRT_HALF if half else TENSORRT, (-1e-6, 1e-7)))
    scale = float(index.array("relu1/scale"))
    assert scale == (2.0**-20 if half else np.float32(1e-6) / np.float32(127))
    assert float(np.float16(2.0**-20 * 1.25)) == 2.0**-20 * 1.25  # two bits of a fraction are left there


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (8, 8, 3, 3), elements=st.floats(-1e4, 1e4, width=32)))
def test_folding_any_weights_is_off_by_half_a_step_at_most(weight: np.ndarray) -> None:
    model = residual_net()
    Index(model).initializers["conv2.weight"].CopyFrom(numpy_helper.from_array(weight, "conv2.weight"))
    index = Index(quantized(model))
    steps, scale = (index.array(f"conv2.weight/{part}") for part in ("quantized", "scale"))
    step = scale.reshape(-1, 1, 1, 1).astype(np.float64)
    assert steps.min() >= -127
    assert (np.abs(steps * step - weight) <= 0.501 * step).all()


def test_the_source_is_left_as_it_was_and_the_result_is_repeatable() -> None:
    model = residual_net("conv")
    before = to_bytes(model)
    first = to_bytes(quantized(model))
    assert to_bytes(model) == before
    assert to_bytes(quantized(model)) == first


@pytest.mark.parametrize("opset", [13, 17, 20])
def test_the_result_obeys_the_rules_at_every_opset(opset: int) -> None:
    model = quantized(residual_net("conv", opset=opset))
    assert check_tensorrt_rules(model) == []
    assert "DequantizeLinear" in op_types(model)


def test_an_opset_without_per_channel_scales() -> None:
    model = residual_net()
    model.opset_import[0].version = 12
    with pytest.raises(ConfigError, match="the graph is at opset 12; rule: 13 or newer"):
        quantized(model)
