"""The table, and what a graph meets on each target, as a command prints them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from dlx_deploy.errors import ConfigError
from dlx_deploy.report.hazards import view_hazards, view_met
from dlx_deploy.report.targets import view_target
from dlx_deploy.runtime.errors import PackageError


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """A model whose one node is GridSample of opset 20."""
    shapes = {"x": [1, 2, 5, 6], "grid": [1, 3, 3, 2], "y": [1, 2, 3, 3]}
    x, at, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], mode="linear")
    model = helper.make_model(helper.make_graph([node], "g", [x, at], [y]), opset_imports=[helper.make_opsetid("", 20)])
    path = tmp_path / "grid.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_the_table_says_its_day_and_each_entry() -> None:
    view = view_hazards()
    assert view.text.startswith(f"as of {view.date}\n")
    assert all(hazard.id in view.text and hazard.action in view.text for hazard in view.data.hazards)


def test_what_a_graph_meets_where(grid: Path) -> None:
    view = view_met(grid, ["jetson-thor", "rpi5"])
    assert [[found.hazard.id for found in one.met] for one in view.targets] == [["tensorrt-gridsample-opset20"], []]
    first, last = view.text.splitlines()
    assert first.startswith("jetson-thor, tensorrt 10.13.3.9: GridSample of opset 20 is computed as nearest")
    assert last == "nothing is known to be computed wrong on rpi5"
    everywhere = view_met(grid, [])
    assert {"rtx", "jetson-thor", "cpu-x86_64"} <= {one.target for one in everywhere.targets}


def test_a_target_lists_what_its_runtimes_do() -> None:
    assert "tensorrt-gridsample-opset20 (tensorrt 10.13.3.9)" in view_target("jetson-thor").text


def test_what_is_no_graph(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.onnx: cannot be read \(.*\); give an ONNX model or a package"):
        view_met(tmp_path / "no.onnx", [])
    (tmp_path / "a.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(PackageError, match=r"a\.onnx: the model is no ONNX model"):
        view_met(tmp_path / "a.onnx", [])


def test_weights_may_lie_beside_the_graph(grid: Path, tmp_path: Path) -> None:
    model = onnx.load(grid)
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4], b"\0" * 16, raw=True)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="grid.onnx.data")
    model.graph.initializer.append(weights)
    (tmp_path / "large.onnx").write_bytes(model.SerializeToString())
    assert view_met(tmp_path / "large.onnx", ["jetson-thor"]).targets[0].met
