"""What an ONNX file's operators would do on each target, as ``inspect`` and ``plan`` show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.report.graphs import view_graph
from dlx_deploy.report.plans import view_plan
from dlx_deploy.runtime.engine import api
from dlx_deploy.runtime.errors import BackendMissing

from ..conftest import Here
from ..foreign_models import foreign_net, saved
from ..stages.support.planning import planned

NORMALISED = ["data.mean=[0.5]", "data.std=[0.25]"]


def compressed() -> ModelProto:
    """With a Compress, which no TensorRT reads."""
    model = foreign_net()
    model.graph.node[1].CopyFrom(helper.make_node("Compress", ["conv", "keep"], ["relu"], axis=1))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(4, bool), "keep"))
    return model


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(flavour: str) -> object:
        raise BackendMissing(flavour)

    monkeypatch.setattr(api, "load_api", missing)


@pytest.mark.usefixtures("no_parser")
def test_a_file_is_shown_with_its_ends_and_operators(tmp_path: Path) -> None:
    view = view_graph(saved(tmp_path / "net.onnx", compressed()), ["jetson", "rpi5"])
    lines = view.text.splitlines()
    assert lines[1:4] == [
        "  reads x float32[N, 1, 8, 8]",
        "  gives logits_ float32[N, 10]",
        "  can be built from: --model FILE",
    ]
    assert any(line.startswith("  ONNX Runtime ") and line.endswith("runs it") for line in lines)
    (row,) = (line.split("  ") for line in lines if line.startswith("Compress  "))
    assert [cell.strip() for cell in row if cell.strip()] == ["Compress", "1", "not supported", "runs"]
    assert "Compress, not supported: no TensorRT so far reads it (jetson-orin-nano-8gb)" in lines
    assert [one.target for one in view_graph(tmp_path / "net.onnx", []).verdicts][::5] == [
        "jetson-orin-nano-8gb",
        "rpi5",
        "rtx",
    ]


@pytest.mark.usefixtures("no_parser")
def test_operators_of_the_file_s_own_functions_stand_for_them(tmp_path: Path) -> None:
    model = foreign_net()
    opset = helper.make_opsetid("", 17)
    inside = helper.make_node("Det", ["a"], ["b"])
    model.functions.append(helper.make_function("own", "Mine", ["a"], ["b"], [inside], [opset]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "Mine", "own"
    view = view_graph(saved(tmp_path / "net.onnx", model), ["jetson"])
    assert {"Det": "not supported", "Conv": "runs"}.items() <= {
        one.operator: one.verdict for one in view.verdicts
    }.items()
    assert "own.Mine" not in [one.operator for one in view.verdicts]


def test_what_cannot_be_built_from_is_said(tmp_path: Path) -> None:
    model = foreign_net()
    model.graph.node[1].domain = "com.example"
    view = view_graph(saved(tmp_path / "net.onnx", model), ["rpi5"])
    assert "  cannot be built from: has custom operators: com.example.Relu" in view.text
    assert view.asked == ()


def test_the_command_names_what_is_no_model(here: Here, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"words")
    done = here("inspect", "net.onnx")
    assert (done.code, "net.onnx: no ONNX model" in done.err) == (2, True)


def test_a_plan_lists_them_below_its_steps(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", compressed())
    build = planned(tmp_path, f"teacher.model={path}", *NORMALISED)
    from dlx_deploy.pipeline.store import Store

    text = view_plan([build], Store(tmp_path / ".dlx")).text
    assert text.index("package") < text.index("Compress") < text.index("Compress, not supported: no TensorRT")


def test_what_tensorrt_rtx_says_is_shown(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    asked = view_graph(saved(tmp_path / "net.onnx", compressed()), ["rtx"]).asked
    assert "cannot parse the graph, in 1 places: node number 1 (Compress)" in asked[1]
    asked = view_graph(saved(tmp_path / "net.onnx", foreign_net()), ["rtx"]).asked
    assert asked[1].endswith("its parser reads it")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.onnx: cannot be read"):
        view_graph(tmp_path / "gone.onnx", [])
