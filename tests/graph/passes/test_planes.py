"""Graphs that read uint8 images, given float planes: what reads the images may be anything that can be turned."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.model import load
from dlx_deploy.graph.passes.base import run_passes
from dlx_deploy.graph.passes.planes import PLANES, planar_passes

TO_PLANES = {"perm": [0, 3, 1, 2]}


def graph(nodes: list[NodeProto], out: str, kind: int = TensorProto.FLOAT, opset: int = 17) -> ModelProto:
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 2, 3, 3])]
    made = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info(out, kind, ["n", 3])])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def cast(kind: int, out: str) -> NodeProto:
    return helper.make_node("Cast", ["images"], [out], to=kind)


BOTH = [
    cast(TensorProto.FLOAT, "f"),
    helper.make_node("Transpose", ["f"], ["planes_a"], **TO_PLANES),
    helper.make_node("Transpose", ["f"], ["rows"], perm=[0, 2, 1, 3]),
    helper.make_node("ReduceMean", ["planes_a"], ["a"], axes=[2, 3], keepdims=0),
    helper.make_node("ReduceMean", ["rows"], ["b"], axes=[1, 2], keepdims=0),
    helper.make_node("Sub", ["a", "b"], ["same"]),
    helper.make_node("ReduceMax", ["f"], ["top"], axes=[1, 2], keepdims=0),
    helper.make_node("Add", ["same", "top"], ["logits"]),
]
HALF = [
    cast(TensorProto.FLOAT16, "h"),
    helper.make_node("Transpose", ["h"], ["p"], **TO_PLANES),
    helper.make_node("ReduceMean", ["p"], ["m"], axes=[2, 3], keepdims=0),
    helper.make_node("Cast", ["m"], ["logits"], to=TensorProto.FLOAT),
]
TWICE = [
    *BOTH[:2],
    cast(TensorProto.FLOAT, "g"),
    helper.make_node("ReduceMean", ["planes_a"], ["a"], axes=[2, 3], keepdims=0),
    helper.make_node("ReduceMax", ["g"], ["top"], axes=[1, 2], keepdims=0),
    helper.make_node("Add", ["a", "top"], ["logits"]),
]


@pytest.mark.parametrize("nodes", [BOTH, HALF, TWICE], ids=["both ways", "half", "two casts"])
def test_the_answers_stay(nodes: list[NodeProto]) -> None:
    model = graph(nodes, "logits")
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 3, 3), np.uint8)
    (logits,) = ort.InferenceSession(model.SerializeToString()).run(None, {"images": images})
    made = run_passes(load(model), planar_passes(), "x")
    planes = images.transpose(0, 3, 1, 2).astype(np.float32)
    (found,) = ort.InferenceSession(made.SerializeToString()).run(None, {PLANES: planes})
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


def test_what_cannot_be_turned_is_refused() -> None:
    shaped = [helper.make_node("Shape", ["images"], ["s"]), helper.make_node("Cast", ["s"], ["logits"], to=1)]
    with pytest.raises(ConfigError, match=r"x: the images are read by a node Shape; rule: by casts to float alone"):
        run_passes(graph(shaped, "logits"), planar_passes(), "x")
    with pytest.raises(StageFailed, match=r"its opset is 12; rule: at least 13"):
        run_passes(graph(HALF, "logits", opset=12), planar_passes(), "x")
    floats = graph(HALF, "logits")
    floats.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(StageFailed, match=r"it reads images; rule: one input, uint8\[N, H, W, C\]"):
        run_passes(floats, planar_passes(), "x")
