"""Calibration inputs that are all of one class, where validation's are not, are said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from dlx_deploy.config import Quantize
from dlx_deploy.graph.execution.decided import _decided, commonest_share
from dlx_deploy.graph.quantization.trials import Sensitivity, Trials, written
from dlx_deploy.graph.samples import Samples
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.runtime.untyped import Array
from dlx_deploy.stages.quantize import notes
from dlx_deploy.stages.support.calibrated import one_answer

from .verifications import brightness


@dataclass(frozen=True)
class Pixels:
    """A data set of single pixels: so many of each split, class by class, are black."""

    black: dict[str, int]
    count: int = 640

    @property
    def splits(self) -> dict[str, int]:
        return dict.fromkeys(self.black, self.count)

    def samples(self, name: str) -> Samples:
        pixels = (np.arange(self.count) >= self.black[name]).astype(np.uint8)
        return Samples({"images": pixels.reshape(-1, 1, 1, 1)})


def said(black: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda _: Pixels(black))
    (tmp_path / "m.onnx").write_bytes(brightness(TensorProto.FLOAT))
    metrics = one_answer(Job(Quantize(), {"onnx": tmp_path / "m.onnx", "data": tmp_path}, tmp_path))
    files = {"trials.json": Trials(), "sensitivity.json": Sensitivity()}
    for name, value in files.items():
        (tmp_path / name).write_bytes(written(value))
    return list(notes({name: tmp_path / name for name in files}, metrics))


@pytest.mark.parametrize(
    ("calibration", "validation", "shares"),
    [
        (640, 320, ["100.00 %", "50.00 %"]),
        (0, 320, ["100.00 %", "50.00 %"]),
        (620, 320, ["96.88 %", "50.00 %"]),
        (640, None, ["100.00 %"]),
        (600, 320, []),  # one in sixteen is another
        (640, 640, []),  # as the data are
        (620, 560, []),  # nearly so
    ],
)
def test_one_class(
    calibration: int, validation: int | None, shares: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    black = {"calibration": calibration} | ({} if validation is None else {"validation": validation})
    found = said(black, tmp_path, monkeypatch)
    assert len(found) == bool(shares)
    if shares:
        beside = "" if validation is None else f", and {shares[1]} of the validation inputs"
        assert found[0].startswith(
            f"the network gives {shares[0]} of the calibration inputs the same answer{beside}: scales of activations"
        )
        assert "calibrate on inputs of every class, or remove the folder calibration/" in found[0]


def model(op_type: str, shape: list[Any], kind: int = TensorProto.FLOAT, **attributes: Any) -> bytes:
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("y", kind, None),
    ]
    graph = helper.make_graph([helper.make_node(op_type, ["x"], ["y"], **attributes)], "g", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def rows(values: Array) -> Samples:
    return Samples({"x": values.astype(np.float32)})


def test_maps_decide_in_each_place_and_integers_are_decisions() -> None:
    scores = np.zeros((2, 3, 2, 2))
    scores[:, 2] = 1
    scores[0, 1, 0, 0] = 2
    assert commonest_share(model("Relu", ["n", 3, 2, 2]), rows(scores)) == 7 / 8
    maps = model("ArgMax", ["n", 3, 2, 2], TensorProto.INT64, axis=1, keepdims=0)
    assert commonest_share(maps, rows(scores)) == 7 / 8


def test_a_single_number_decides_nothing() -> None:
    assert commonest_share(model("Relu", ["n", 1]), rows(np.ones((4, 1)))) is None


def test_one_number_for_each_sample_decides_nothing() -> None:
    assert _decided(np.zeros(3, np.float32)) is None
    assert _decided(np.zeros((3, 1), np.float32)) is None
