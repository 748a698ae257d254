"""What compile says of a graph that a target's runtime computes wrong, and what stops there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.errors import StageFailed
from dlx_deploy.runtime.hazards.operators import Operator
from dlx_deploy.stages.support.hazards import OPERATORS, hazard_notes, refuse_hazards, write_operators
from dlx_deploy.targets import load_target

from ...onnx_fixtures import residual_net

GRID = Operator("GridSample", 20, "float32", "float32", ("mode=linear",))
NORM = [Operator(name, 16, "float32", "float32") for name in ("ReduceMean", "Pow", "Sqrt")]


def finished(folder: Path, operators: list[Operator], engine: dict[str, Any] | None = None) -> dict[str, Path]:
    """The outputs of a compile step, as far as hazards go."""
    summary = {"schema": 1, "operators": [vars(one) for one in operators]}
    (folder / OPERATORS).write_text(json.dumps(summary))
    (folder / "recipe.json").write_text(json.dumps({"engine": engine}))
    return {name: folder / name for name in (OPERATORS, "recipe.json")}


def test_the_engine_of_the_target_would_be_wrong(tmp_path: Path) -> None:
    outputs = finished(tmp_path, [GRID], {"precision": "fp16"})
    thor, orin, board = (load_target(name).profile for name in ("jetson-thor", "jetson-orin-nano-8gb", "rpi5"))
    with pytest.raises(StageFailed, match=r"jetson-thor, tensorrt 10\.13\.3\.9: GridSample of opset 20 .*; build the"):
        refuse_hazards(thor, outputs)
    refuse_hazards(orin, outputs)  # its JetPack's is 10.3; a newer one is known there too
    (note,) = hazard_notes(orin, outputs)
    assert note.startswith("known to be computed wrong on jetson-orin-nano-8gb, tensorrt 10.16.1: GridSample")
    assert hazard_notes(board, outputs) == []


def test_what_a_builder_may_choose_depends_on_its_settings(tmp_path: Path) -> None:
    xavier, orin = load_target("jetson-xavier-nx").profile, load_target("jetson-orin-nano-8gb").profile
    weak = finished(tmp_path, NORM, {"precision": "int8", "weak_types": ["int8", "fp16"]})
    (note,) = hazard_notes(xavier, weak)
    assert "tensorrt 8.5.2: a decomposed LayerNorm overflows in FP16" in note
    refuse_hazards(xavier, weak)  # only said
    (note,) = hazard_notes(orin, weak)
    assert "tensorrt 8.5.2: a decomposed" in note  # JetPack 5 on an Orin; later ones take types from the graph
    assert hazard_notes(xavier, finished(tmp_path, NORM, {"precision": "int8"})) == []


def test_the_summary_is_of_the_model_beside_it(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(residual_net().SerializeToString())
    write_operators(tmp_path)
    found = json.loads((tmp_path / OPERATORS).read_text())
    assert found["schema"] == 1
    assert {one["type"] for one in found["operators"]} >= {"Conv", "Add", "Relu"}
    for target in ("jetson-orin-nano-8gb", "jetson-thor", "rpi5", "rtx"):
        (tmp_path / "recipe.json").write_text('{"engine": null}')
        outputs = {name: tmp_path / name for name in (OPERATORS, "recipe.json")}
        assert hazard_notes(load_target(target).profile, outputs) == []  # no false alarm
