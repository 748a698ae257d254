"""Timings of ONNX models, and what their timed runs must have answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.execution.latency import interleaved_latency
from dlx_deploy.graph.samples import Samples
from dlx_deploy.runtime.timing import models
from dlx_deploy.runtime.timing.sampling import Sampling

ROW = Samples({"x": np.array([[1.0, 2.0, 3.0]], np.float32)})


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    one = helper.make_tensor_value_info
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [one("x", TensorProto.FLOAT, [2, 3])], [one("y", TensorProto.FLOAT, [2, 3])])
    path = tmp_path / "doubled.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


class Wrong:
    """A session that is right for so many runs, and then off by a tenth of the largest value."""

    def __init__(self, session: Any, right: int) -> None:
        self.session, self.left = session, right

    def run(self, names: Any, feed: Any) -> Any:
        self.left -= 1
        values = self.session.run(names, feed)
        return values if self.left >= 0 else [value + 0.6 for value in values]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


@pytest.mark.parametrize("right", [0, 7, 100])
def test_a_timed_run_must_give_what_accuracy_is_found_by(
    doubled: Path, monkeypatch: pytest.MonkeyPatch, right: int
) -> None:
    opened = models.open_session
    monkeypatch.setattr(models, "open_session", lambda *given, **named: Wrong(opened(*given, **named), right))
    asked = Sampling(5, warmup=3, pace=0.0)
    if right == 100:
        assert interleaved_latency({"a": doubled}, ROW, asked, 1).latencies["a"].n == 5
        return
    with pytest.raises(StageFailed, match="the timed run of a gave another y than the run that its accuracy is found"):
        interleaved_latency({"a": doubled}, ROW, asked, 1)


@pytest.mark.parametrize(
    ("values", "wanted", "near"),
    [
        ([1.0, 100.0], [1.9, 100.0], True),
        ([1.0, 100.0], [2.1, 100.0], False),
        ([np.nan, 1.0], [np.nan, 1.0], True),
        ([1.0, np.nan], [1.0, 1.0], False),
        ([[1.0]], [1.0], False),
        ([1, 2, 3], [1, 2, 3], True),
        ([1, 2, 3], [1, 2, 4], False),
        ([7] * 99 + [1], [7] * 100, True),
    ],
)
def test_what_is_near(values: list[Any], wanted: list[Any], near: bool) -> None:
    assert models._near(np.array(values), np.array(wanted)) is near
