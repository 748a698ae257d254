from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.passes.opset import lower

from ...onnx_fixtures import op_types


def one_node(
    op_type: str, inputs: list[str], constants: dict[str, Any], opset: int = 18, **attributes: Any
) -> ModelProto:
    """float32[2, 3, 4] ``x`` → ``y``, through one node named ``it``."""
    made = helper.make_node(op_type, inputs, ["y"], name="it", **attributes)
    dtype = TensorProto.INT64 if op_type == "Shape" else TensorProto.FLOAT
    graph = helper.make_graph(
        [made],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4])],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))


def run(model: ModelProto) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)})[0]


AXES = {"axes": np.array([1, 2])}
NORM = {"scale": np.linspace(1, 2, 12, dtype=np.float32).reshape(3, 4), "bias": np.full((3, 4), 0.5, np.float32)}
CASES = [
    ("ReduceMean", ["x", "axes"], AXES, {"keepdims": 0}),
    ("ReduceMax", ["x"], {}, {}),
    ("ReduceMean", ["x"], {}, {"noop_with_empty_axes": 1}),
    ("HardSwish", ["x"], {}, {}),
    ("LayerNormalization", ["x", "scale", "bias"], NORM, {"axis": -2, "epsilon": 0.01}),
    ("LayerNormalization", ["x", "scale"], NORM, {"axis": -2}),
    ("Shape", ["x"], {}, {"start": 1}),
    ("Shape", ["x"], {}, {"start": 0, "end": 1}),
    ("Shape", ["x"], {}, {}),
    ("Reshape", ["x", "shape"], {"shape": np.array([-1, 4])}, {"allowzero": 1}),
    ("Split", ["x"], {}, {"num_outputs": 1}),
    ("Relu", ["x"], {}, {}),
]


@pytest.mark.parametrize("target", [13, 17])
@pytest.mark.parametrize(("op_type", "inputs", "constants", "attributes"), CASES)
def test_the_lowered_graph_computes_the_same(
    op_type: str, inputs: list[str], constants: dict[str, Any], attributes: dict[str, Any], target: int
) -> None:
    model = one_node(op_type, inputs, {k: v for k, v in constants.items() if k in inputs}, **attributes)
    lowered = lower(model, target)
    onnx.checker.check_model(lowered, full_check=True)
    assert (lowered.opset_import[0].version, lowered.ir_version) == (target, {13: 7, 17: 8}[target])
    np.testing.assert_allclose(run(lowered), run(model), atol=1e-6)


@pytest.mark.parametrize(("source", "groups", "target"), [(21, 1, 20), (21, 3, 16), (18, 1, 17), (18, 3, 17)])
def test_a_group_norm_has_a_scale_for_each_channel_or_group(source: int, groups: int, target: int) -> None:
    size = 3 if source == 21 else groups
    constants = {"scale": np.linspace(1, 2, size, dtype=np.float32), "bias": np.linspace(0, 1, size, dtype=np.float32)}
    given = {"num_groups": groups, "epsilon": 0.01}
    model = one_node("GroupNormalization", ["x", "scale", "bias"], constants, source, **given)
    lowered = lower(model, target)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(lowered), full_check=True)
    assert "InstanceNormalization" in op_types(lowered)
    np.testing.assert_allclose(run(lowered), _group_norm(constants, **given), atol=1e-5)


def _group_norm(constants: dict[str, Any], num_groups: int, epsilon: float) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    grouped = x.reshape(2, num_groups, -1)
    apart = grouped - grouped.mean(-1, keepdims=True)
    normal = (apart / np.sqrt((apart**2).mean(-1, keepdims=True) + epsilon)).reshape(x.shape)
    scale, bias = (np.repeat(constants[name], 3 // len(constants[name]))[:, None] for name in ("scale", "bias"))
    return normal * scale + bias


def test_a_batch_norm_in_eval_mode() -> None:
    names = ["x", *"abcd"]
    constants = {k: np.array([1.0, 2.0, 0.5], np.float32) for k in "abcd"}
    model = one_node("BatchNormalization", names, constants, training_mode=0)
    np.testing.assert_allclose(run(lower(model, 13)), run(model), atol=1e-6)
    with pytest.raises(StageFailed, match="training mode; export the model in eval mode"):
        lower(one_node("BatchNormalization", names, constants, training_mode=1), 13)


def test_layer_norm_stays_where_the_target_has_it() -> None:
    inputs = ["x", "scale", "bias"]
    assert op_types(lower(one_node("LayerNormalization", inputs, NORM, axis=-2), 17)) == ["LayerNormalization"]
    assert "LayerNormalization" not in op_types(lower(one_node("LayerNormalization", inputs, NORM, axis=-2), 16))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (one_node("Mish", ["x"], {}), r"Mish \(node 'it'\) cannot be written at opset 13: .*only there since opset 18"),
        (
            one_node("GridSample", ["x", "grid"], {"grid": np.zeros((2, 2, 1), np.float32)}, opset=20),
            r"GridSample \(node 'it'\) cannot be written at opset 13: .*only there since opset 16",
        ),
        (one_node("ReduceMean", ["x", "x"], {}), "its input 1 is computed, not constant"),
        (one_node("LayerNormalization", ["x", "scale"], NORM, axis=1), "only a negative axis"),
        (one_node("Reshape", ["x", "s"], {"s": np.array([0, 4])}, allowzero=1), "allowzero = 1 did not exist"),
        (one_node("Resize", ["x", "", "s"], {"s": np.ones(3, np.float32)}, antialias=1), "antialias = 1 did not exist"),
        (
            one_node("Pad", ["x", "p", "", "axes"], {"p": np.array([1, 1]), "axes": np.array([2])}),
            "it has 4 inputs, and 3 were allowed then",
        ),
    ],
)
def test_what_cannot_be_lowered_is_named(model: ModelProto, message: str) -> None:
    with pytest.raises(StageFailed, match=message):
        lower(model, 13)


def test_a_foreign_domain_is_refused() -> None:
    model = one_node("Relu", ["x"], {})
    model.graph.node[0].domain = "com.microsoft"
    with pytest.raises(StageFailed, match=r"domain 'com\.microsoft'"):
        lower(model, 13)


def test_resize_without_new_options_is_lowered() -> None:
    model = one_node("Resize", ["x", "", "s"], {"s": np.array([1, 1, 2], np.float32)}, mode="nearest", antialias=0)
    np.testing.assert_allclose(run(lower(model, 13)), run(model))


def test_a_newer_target_leaves_the_opset() -> None:
    assert lower(one_node("Relu", ["x"], {}), 20).opset_import[0].version == 18
