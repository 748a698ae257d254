"""INT4 weights as float32: what is stored, whatever the version of ONNX Runtime would make of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.graph.quantization.blocks import int4_tensor
from dlx_deploy.runtime.backends.exact import exact_model
from dlx_deploy.runtime.backends.exact_int4 import restored_weights
from dlx_deploy.runtime.backends.session import open_session
from dlx_deploy.runtime.errors import PackageError

RANDOM = np.random.default_rng(0)
STEPS = RANDOM.integers(-8, 8, (64, 6)).astype(np.int8)


def product(half: bool = False, size: int = 32, **changes: Any) -> ModelProto:
    """float32 ``x`` [n, 64] times INT4 weights in blocks of ``size`` inputs, maybe in float16."""
    kind = np.float16 if half else np.float32
    scales = changes.get("scales", RANDOM.uniform(0.01, 0.1, (-(-64 // size), 6)).astype(kind))
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["r"], name="restore", axis=0, block_size=size),
        helper.make_node("MatMul", ["h" if half else "x", "r"], ["p" if half else "y"], name="layer"),
    ]
    if half:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16))
        nodes.append(helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT))
    nodes += changes.get("nodes", [])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", dim]) for name, dim in (("x", 64), ("y", 6))]
    stored = [changes.get("stored", int4_tensor(STEPS, "w")), numpy_helper.from_array(scales, "s")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def constants(model: bytes) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(model).graph.initializer}


@pytest.mark.parametrize("half", [False, True])
def test_weights_are_what_their_blocks_say(half: bool) -> None:
    model = product(half)
    scale = numpy_helper.to_array(model.graph.initializer[1])
    made = restored_weights(model.SerializeToString())
    wanted = (STEPS * np.repeat(scale, 32, axis=0).astype(np.float32)).astype(scale.dtype).astype(np.float32)
    found = constants(made)
    assert set(found) == {"r", "s"}
    assert np.array_equal(found["r"], wanted)
    assert found["r"].dtype == np.float32
    read = onnx.load_model_from_string(made)
    assert [node.op_type for node in read.graph.node if node.op_type == "DequantizeLinear"] == []
    assert (read.opset_import[0].version, read.ir_version) == (20, 9)


def test_a_session_computes_with_them_and_not_with_rounded_activations() -> None:
    model = product().SerializeToString()
    x = RANDOM.normal(0, 1, (5, 64)).astype(np.float32)
    scale = numpy_helper.to_array(onnx.load_model_from_string(model).graph.initializer[1])
    wanted = x @ (STEPS * np.repeat(scale, 32, axis=0)).astype(np.float32)
    (found,) = open_session(model, exact_qdq=True).run(None, {"x": x})
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        product(scales=np.ones((3, 6), np.float32)),  # not one for each block
        product(scales=np.ones((2, 6), np.float64)),
        product(stored=numpy_helper.from_array(STEPS, "w")),
    ],
)
def test_what_is_of_another_kind_stays(model: ModelProto) -> None:
    assert restored_weights(model.SerializeToString()) == model.SerializeToString()


def test_a_block_that_is_longer_than_the_weights_is_one_block() -> None:
    scale = np.full((1, 6), 0.5, np.float32)
    made = restored_weights(product(size=2**62, scales=scale).SerializeToString())
    assert np.array_equal(constants(made)["r"], STEPS * np.float32(0.5))


def test_an_operator_that_means_something_else_in_the_older_opset_keeps_its_own() -> None:
    group = helper.make_node("GroupNormalization", ["y", "a", "b"], ["z"], num_groups=2)
    made = onnx.load_model_from_string(restored_weights(product(nodes=[group]).SerializeToString()))
    assert made.opset_import[0].version == 21


@pytest.mark.parametrize(
    ("dims", "left", "message"),
    [
        ([64, 6], 191, r"191 bytes for the shape \[64, 6\] of INT4"),
        ([2**62] * 20, 192, r"192 bytes for the shape \[46"),
    ],
)
def test_bytes_that_are_not_those_of_the_shape_are_no_weights(dims: list[int], left: int, message: str) -> None:
    stored = int4_tensor(STEPS, "w")
    stored.raw_data = stored.raw_data[:left]
    del stored.dims[:]
    stored.dims.extend(dims)
    with pytest.raises(PackageError, match=rf"the tensor 'w' has {message}"):
        exact_model(product(stored=stored).SerializeToString())


def test_a_shape_beyond_all_numbers_is_no_shape() -> None:
    scales = numpy_helper.from_array(np.ones((2, 6), np.float32), "s")
    model = product()
    scales.dims.extend([2**62] * 20)
    model.graph.initializer[1].CopyFrom(scales)
    with pytest.raises(PackageError, match=r"the tensor 's' has 12 values for the shape \[2, 6, 46"):
        exact_model(model.SerializeToString())
