from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

from dlx_deploy.graph.model import load, to_bytes
from dlx_deploy.graph.quantization.kit import learned_rounding, moments
from dlx_deploy.graph.quantization.kit.judge import Judge
from dlx_deploy.graph.quantization.kit.learned_rounding import learn_rounding, rounded_in_turn
from dlx_deploy.graph.quantization.kit.moments import as_rows, from_rows, second_moments
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.graph.quantization.scheme import CPU_REDUCED, TENSORRT, Scheme
from dlx_deploy.progress import silent

from ....arrays import samples
from ....onnx_fixtures import Net, digits, exported, images
from .states import started


def correlated(groups: int, inputs: int, count: int = 400) -> NDArray[np.float32]:
    """float32[groups, inputs, count], each a mixture of a few sources and some noise."""
    random = np.random.default_rng(0)
    sources = random.normal(size=(groups, 3, count))
    mixed = random.normal(size=(groups, inputs, 3)) @ sources + 0.1 * random.normal(size=(groups, inputs, count))
    return mixed.astype(np.float32)


@pytest.mark.parametrize("groups", [1, 5])
def test_outputs_are_nearer_than_with_the_nearest_integers(groups: int) -> None:
    x = correlated(groups, 12)
    weights = np.random.default_rng(1).normal(0, 3, (groups, 4, 12)).astype(np.float32)
    steps = rounded_in_turn(weights, (x @ x.transpose(0, 2, 1)).astype(np.float64) / x.shape[2], 7)
    assert steps.dtype == np.int8
    assert np.abs(steps).max() <= 7
    nearest = np.rint(weights).clip(-7, 7)
    errors = [np.square((weights - chosen) @ x).sum() for chosen in (steps, nearest)]
    assert errors[0] < 0.3 * errors[1]


def test_inputs_that_are_independent_get_the_nearest_integers() -> None:
    weights = np.random.default_rng(1).normal(0, 3, (2, 4, 6)).astype(np.float32)
    assert np.array_equal(rounded_in_turn(weights, np.stack([np.eye(6)] * 2), 127), np.rint(weights))


def test_zeros_stay_and_inputs_that_are_always_zero_do_no_harm() -> None:
    x = correlated(1, 8)
    x[:, 5] = 0
    weights = np.random.default_rng(1).normal(0, 3, (1, 4, 8)).astype(np.float32)
    weights[:, :, ::2] = 0
    steps = rounded_in_turn(weights, (x @ x.transpose(0, 2, 1)).astype(np.float64), 127)
    assert not steps[:, :, ::2].any()
    assert np.array_equal(rounded_in_turn(weights, np.zeros((1, 8, 8)), 127), np.rint(weights))


CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"group": 4},
    {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1]},
    {"dilations": [2, 1], "pads": [2, 1, 2, 1]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [3, 2]},
]


@pytest.mark.parametrize("attributes", CONVOLUTIONS, ids=str)
def test_columns_are_what_a_convolution_reads(attributes: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    groups = attributes.get("group", 1)
    x = random.normal(size=(3, 4, 9, 8)).astype(np.float32)
    weight = random.normal(size=(8, 4 // groups, 3, 3)).astype(np.float32)
    conv = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    rows = as_rows(conv, weight)
    assert np.array_equal(from_rows(conv, rows, weight.shape), weight)
    columns = moments._columns(conv, x, (3, 3), 10_000)
    ends = [helper.make_tensor_value_info(n, 1, None) for n in "xwy"]
    graph = helper.make_graph([conv], "g", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x, "w": weight})
    found = (rows @ columns).reshape(8, 3, -1).transpose(1, 0, 2).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    together = second_moments(conv, [x[:2], x[2:]], (3, 3))
    np.testing.assert_allclose(together, columns @ columns.transpose(0, 2, 1) / columns.shape[2], atol=1e-4)


@pytest.mark.parametrize(("op", "transposed"), [("Gemm", 0), ("Gemm", 1), ("MatMul", 0)])
def test_columns_of_a_matrix_product(op: str, transposed: int) -> None:
    x = np.random.default_rng(0).normal(size=(5, 2, 6)).astype(np.float32)
    x = x[:, 0] if op == "Gemm" else x
    weight = np.random.default_rng(1).normal(size=(4, 6) if transposed else (6, 4)).astype(np.float32)
    product = helper.make_node(op, ["x", "w"], ["y"], **({"transB": 1} if transposed else {}))
    rows = as_rows(product, weight)
    assert rows.shape == (1, 4, 6)
    assert np.array_equal(from_rows(product, rows, weight.shape), weight)
    flat = x.reshape(-1, 6)
    np.testing.assert_allclose(second_moments(product, [x], ())[0], flat.T @ flat / len(flat), atol=1e-5)


def test_places_are_some_of_many() -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    x = np.zeros((2, 3, 20, 20), np.float32)
    assert moments._columns(conv, x, (1, 1), 7).shape == (1, 3, 14)


@pytest.mark.parametrize("levels", [7, 64])
@pytest.mark.parametrize("scheme", [TENSORRT, CPU_REDUCED], ids=lambda scheme: scheme.name)
def test_a_network_with_learned_rounding_is_nearer_to_float32(scheme: Scheme, levels: int) -> None:
    scheme = msgspec.structs.replace(scheme, weight_levels=levels)
    setting, state = started(load(exported()), scheme, digits()[0][:64])
    learned = learn_rounding(state, setting, silent)
    assert learned is not None
    assert set(learned.rounded) == set(state.plan.layers_at("int8"))
    judge = Judge(state.model, samples(digits()[2][:64]), exact=True)
    before, after = (judge.score(setting.write(one)).sqnr_db for one in (state, learned))
    assert after > before + (3 if levels == 7 else 0)
    again = learn_rounding(learned, setting, silent)
    assert again is not None
    assert all(np.array_equal(again.rounded[name], steps) for name, steps in learned.rounded.items())


def test_layers_with_too_many_inputs_keep_the_nearest_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    setting, state = started(load(exported()), TENSORRT, digits()[0][:16])
    monkeypatch.setattr(learned_rounding, "MOST_INPUTS", 40)
    learned = learn_rounding(state, setting, silent)
    assert learned is not None
    assert set(learned.rounded) == {"0/Conv", "4.short.0/Conv", "7/Gemm"}
    monkeypatch.setattr(learned_rounding, "MOST_INPUTS", 1)
    assert learn_rounding(state, setting, silent) is None


def test_weights_that_two_layers_share_are_rounded_once() -> None:
    net = Net()
    x = net.conv("a", net.planes(), 1, 4)
    net.conv("b", x, 4, 4)
    net.add("c", "Conv", net.add("relu", "Relu", "b"), "b.weight", "b.bias", pads=[1] * 4)
    setting, state = started(net.head("c", 4), TENSORRT, images(16))
    learned = learn_rounding(state, setting, silent)
    assert learned is not None
    assert set(learned.rounded) == {"a/Conv", "b/Conv", "logits/Gemm"}
    setting.write(learned)


def test_weights_of_four_bits_are_from_minus_7_to_7() -> None:
    scheme = QuantizationRequest("tensorrt", weight_bits=4).scheme
    assert scheme is not None
    setting, state = started(load(exported()), scheme, digits()[0][:16])
    written = setting.write(state)
    stored = [t for t in written.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]
    assert stored
    assert {int(np.abs(onnx.numpy_helper.to_array(t)).max()) for t in stored} == {7}
    assert to_bytes(written)
