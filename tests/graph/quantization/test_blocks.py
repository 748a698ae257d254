from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index, opset
from dlx_deploy.graph.quantization.blocks import block_scales, in_block_opset, int4_tensor, not_blockable

from ...onnx_fixtures import node, product_net, residual_net


def restored(weight: NDArray[np.float32], axis: int, size: int, source: str, half: bool = False) -> NDArray[np.float32]:
    scale = np.repeat(block_scales(weight, axis, size, source, half), size, axis=axis)
    return np.rint(weight / scale).clip(-7, 7) * scale


def weights(seed: int, axis: int) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    rows = random.normal(0, 1, (6, 128)) * np.exp(random.normal(0, 2, (6, 1)))
    return np.ascontiguousarray((rows if axis else rows.T).astype(np.float32))


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_largest_weight_of_a_block_is_seven_steps(axis: int, size: int) -> None:
    weight = weights(0, axis)
    scale = block_scales(weight, axis, size)
    assert scale.shape[axis] == 128 // size
    assert scale.shape[1 - axis] == weight.shape[1 - axis]
    rows, scales = (weight, scale) if axis else (weight.T, scale.T)
    assert scales == pytest.approx(np.abs(rows.reshape(6, -1, size)).max(axis=2) / 7, rel=1e-6)
    assert (np.abs(restored(weight, axis, size, "max") - weight) <= 0.5001 * np.repeat(scale, size, axis=axis)).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.booleans())
def test_scales_by_mse_are_no_further_off(seed: int, inputs_first: bool, half: bool) -> None:
    axis = 0 if inputs_first else 1
    weight = weights(seed, axis)
    error = {kind: np.square(restored(weight, axis, 32, kind, half) - weight).sum() for kind in ("max", "mse")}
    assert error["mse"] < error["max"]


def test_scales_of_zeros_and_of_half_precision() -> None:
    weight = np.zeros((2, 64), np.float32)
    weight[0, 0], weight[0, 32] = 1e-12, 0.3
    assert block_scales(weight, 1, 32).tolist() == [[np.float32(1e-12) / 7, np.float32(0.3) / 7], [1, 1]]
    scales = block_scales(weight, 1, 32, half=True)
    assert (scales == scales.astype(np.float16)).all()
    assert scales.min() == 2.0**-20


def test_integers_are_stored_two_to_a_byte() -> None:
    steps = np.arange(-8, 7, dtype=np.int8).reshape(3, 5)
    stored = int4_tensor(steps, "w")
    assert len(stored.raw_data) == 8
    assert np.array_equal(numpy_helper.to_array(stored).astype(np.int8), steps)


def test_which_layers_have_no_blocks() -> None:
    conv = residual_net(opset=20)
    assert "it is a Conv" in not_blockable(Index(conv), node(conv, "conv1/Conv"), 32)
    model = product_net(96, 64, 10)
    assert not_blockable(Index(model), node(model, "first/MatMul"), 32) == ""
    assert not_blockable(Index(model), node(model, "head/Gemm"), 64) == ""
    assert "96 inputs; rule: a multiple of the block size, 64" in not_blockable(
        Index(model), node(model, "first/MatMul"), 64
    )
    odd = product_net(32, 64, 7)
    assert "7 outputs; rule: an even number" in not_blockable(Index(odd), node(odd, "head/Gemm"), 32)


def grouped() -> ModelProto:
    model = product_net(32, 32, 2)
    model.graph.node.append(helper.make_node("GroupNormalization", ["x", "a", "b"], ["n"], name="norm/Group"))
    return model


def test_opset_20_becomes_21_by_its_number() -> None:
    model = in_block_opset(product_net(32, 32, 2))
    assert (opset(model), model.ir_version) == (21, 10)
    onnx.checker.check_model(model, full_check=True)
    assert opset(in_block_opset(product_net(32, 32, 2, opset=22))) == 22


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (product_net(32, 32, 2, opset=17), r"the graph is at opset 17; rule: INT4 weights are said in opset 21"),
        (grouped(), r"opset 20 and has 'norm/Group' \(GroupNormalization\); rule: .* set export\.opset to 20 or 21"),
    ],
)
def test_what_cannot_be_said_in_opset_21(model: ModelProto, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        in_block_opset(model)
