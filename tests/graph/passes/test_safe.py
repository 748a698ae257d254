"""What a runtime would compute wrong is exported in the form that it computes right."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import opset, to_bytes
from dlx_deploy.graph.passes.base import run_passes
from dlx_deploy.graph.passes.safe import SAFE_FORMS
from dlx_deploy.runtime.hazards.operators import list_operators
from dlx_deploy.runtime.hazards.table import hazards_for


def sampler(mode: str, dims: int = 2, gelu: str = "none") -> ModelProto:
    """GridSample in opset 20's words, and a Gelu, which is as new."""
    sizes = [5, 6, 4][:dims]
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"], name="act", approximate=gelu),
        helper.make_node("GridSample", ["g", "grid"], ["y"], name="sample", mode=mode, align_corners=1),
    ]
    graph = helper.make_graph(
        nodes,
        "sampler",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, *sizes]),
            helper.make_tensor_value_info("grid", TensorProto.FLOAT, [1, *[3] * dims, dims]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, *[3] * dims])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def answers(model: ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(to_bytes(model), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(size=(1, 2, 5, 6)), "grid": rng.uniform(-1, 1, (1, 3, 3, 2))}
    values: np.ndarray = session.run(None, {name: value.astype(np.float32) for name, value in feeds.items()})[0]
    return values


@pytest.mark.parametrize("gelu", ["none", "tanh"])
@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_grid_sample_is_written_as_every_parser_knows_it(mode: str, gelu: str) -> None:
    model = sampler(mode, gelu=gelu)
    before, met = answers(model), hazards_for(list_operators(to_bytes(model)), "tensorrt", "11.1")
    assert [hazard.action for hazard in met] == ["rewrite"] * (mode != "nearest")
    safe = run_passes(model, [SAFE_FORMS], "sampler")
    assert opset(safe) == 19
    onnx.checker.check_model(safe)
    assert hazards_for(list_operators(to_bytes(safe)), "tensorrt", "11.1") == []
    np.testing.assert_allclose(answers(safe), before, rtol=1e-5, atol=1e-6)


def test_what_has_no_older_form_is_refused_by_name() -> None:
    with pytest.raises(
        StageFailed, match=r"GridSample \(node 'sample'\) cannot be written at opset 19: it samples vol"
    ):
        run_passes(sampler("linear", dims=3), [SAFE_FORMS], "sampler")


def test_a_graph_without_such_a_form_stays_as_it_is() -> None:
    model = sampler("linear")
    del model.graph.node[1]
    model.graph.node[0].output[0] = "y"
    before = to_bytes(model)
    assert to_bytes(SAFE_FORMS.run(model)) == before


@pytest.mark.parametrize(
    ("equation", "written"),
    [
        ("BGI,BJG->BIJ", "abc,adb->acd"),
        ("aB,aC->CB", "ca,cb->ba"),
        ("bi,bj->bij", "bi,bj->bij"),
        ("...I,...J->...IJ", "...a,...b->...ab"),
    ],
)
def test_einsum_is_written_in_small_letters(equation: str, written: str) -> None:
    shapes = [[2, 3, 4], [2, 5, 3]] if equation.startswith("BGI") else [[2, 3], [2, 4]]
    if equation.startswith("..."):
        shapes[1][0] = 2
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in zip("xy", shapes, strict=True)
    ]
    node = helper.make_node("Einsum", ["x", "y"], ["z"], equation=equation)
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "einsum", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    feeds = {
        name: np.random.default_rng(0).normal(size=shape).astype(np.float32)
        for name, shape in zip("xy", shapes, strict=True)
    }

    def run() -> np.ndarray:
        session = onnxruntime.InferenceSession(to_bytes(model), providers=["CPUExecutionProvider"])
        value: np.ndarray = session.run(None, feeds)[0]
        return value

    before = run()
    model = run_passes(model, [SAFE_FORMS], "einsum")
    assert model.graph.node[0].attribute[0].s.decode() == written
    np.testing.assert_array_equal(run(), before)
