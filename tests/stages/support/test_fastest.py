"""Of the INT8 graphs that keep to their budget the target's speed chooses, and every trial has a latency."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.config import Config
from dlx_deploy.devices.device import Device
from dlx_deploy.graph.quantization.trials import (
    GRAPHS,
    LayerSensitivity,
    Sensitivity,
    Trial,
    TriedGraph,
    TriedGraphs,
    read_sensitivity,
    written,
)
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job, Offers, Output
from dlx_deploy.stages import compile as compile_stage
from dlx_deploy.stages.compile import STAGE, notes
from dlx_deploy.stages.support.engine import CompileParams
from dlx_deploy.stages.support.fastest import read_timed
from dlx_deploy.stages.support.layer_precisions import LayerPrecisions, read_precisions
from dlx_deploy.targets import load_target
from dlx_deploy.targets.roofline import NOT_MEASURED, LayerCost

from ...datasets import held_images
from ...devices.fake import FakeDevice
from .planning import planned

A, B = ("a/Conv",), ("a/Conv", "b/Conv")
COSTS = LayerSensitivity(layers=A, sqnr_db=1.0, agreement=0.5, restored=True)


def graph(restored: tuple[str, ...], verdict: Any, kilobytes: int, file: str = "") -> TriedGraph:
    """It moves so many bytes."""
    layers = {name: "fp32" if name in restored else "int8" for name in (*B, "c/Conv")}
    cost = {"macs": 1, "weight_bytes": 0, "input_bytes": 1000 * kilobytes, "output_bytes": 0, "memory_bound": True}
    trial = Trial(
        restored=restored, int8_layers=3 - len(restored), int8_macs=0.5, score=0.9, drop=None, drop_upper=None,
        verdict=verdict,
    )  # fmt: skip
    return TriedGraph(
        trial=trial, layers=layers, costs=(LayerCost(name="x", op="Add", dtype="fp32", **cost),), file=file
    )


def run(folder: Path, target: str, kilobytes: tuple[int, int], device: Device | None = None) -> dict[str, Any]:
    """What ``compile`` makes of all INT8, which misses, of ``A``, which is given, and of ``B``."""
    tried = folder / "tried"
    tried.mkdir()
    graphs = (graph((), "missed", 900), graph(A, "met", kilobytes[0]), graph(B, "met", kilobytes[1], "more.onnx"))
    (tried / GRAPHS).write_bytes(written(TriedGraphs(graphs=graphs, given=1)))
    inputs = {
        "tried": tried,
        **{name: folder / name for name in ("onnx", "quantized", "layers", "sensitivity", "data")},
    }
    for path, text in ((inputs["onnx"], b"fp32"), (inputs["quantized"], b"given"), (tried / "more.onnx", b"more")):
        path.write_bytes(text)
    inputs["layers"].write_bytes(
        canonical_json(LayerPrecisions(precision="int8", elsewhere="fp32", layers=graphs[1].layers))
    )
    layers = (COSTS, LayerSensitivity(layers=("b/Conv",), sqnr_db=9.0, agreement=0.9))
    inputs["sensitivity"].write_bytes(written(Sensitivity(samples=4, layers=layers)))
    out = folder / "out"
    out.mkdir()
    metrics = STAGE.run(Job(CompileParams(), inputs, out, load_target(target).profile, device=device))
    files = {name: out / name for name in STAGE.outputs}
    note, *rest = notes(Config(), load_target(target).profile, files, metrics)
    timed = read_timed(files["trials.json"])
    return {
        "shipped": files["model.onnx"].read_bytes(),
        "quantized": files["quantized.onnx"].read_bytes(),
        "int8": [name for name, kind in read_precisions(files["layers.json"]).layers.items() if kind == "int8"],
        "restored": [layer.restored for layer in read_sensitivity(files["sensitivity.json"]).layers],
        "chosen": [row.trial.restored for row in timed.trials if row.chosen],
        "ms": [row.latency_ms for row in timed.trials],
        "how": [row.latency for row in timed.trials],
        "where": timed.where,
        "note": note,
        "rest": rest,
        "recipe": json.loads(files["recipe.json"].read_bytes()),
    }


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of these tests are words."""
    operators = b'{"operators": [], "schema": 1}'
    monkeypatch.setattr(compile_stage, "write_operators", lambda out: (out / "operators.json").write_bytes(operators))
    held = held_images(np.zeros((4, 8, 8, 1), np.uint8), only="validation")
    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda path: held)

    def costs(path: Path) -> list[LayerCost]:
        size = 9000 if path.read_bytes() == b"fp32" else 1
        layer = {"weight_bytes": 0, "input_bytes": 1000 * size, "output_bytes": 0, "memory_bound": True}
        return [LayerCost(name="x", op="Add", macs=1, dtype="fp32", **layer)]  # type: ignore[arg-type]

    monkeypatch.setattr("dlx_deploy.graph.analysis.cost.layer_costs", costs)
    monkeypatch.setattr("dlx_deploy.graph.analysis.islands.island_costs", lambda path: [])
    monkeypatch.setattr("dlx_deploy.graph.analysis.islands.island_words", lambda path: "")


def test_of_those_that_pass_the_fastest_by_paired_timings_is_shipped(tmp_path: Path) -> None:
    device = FakeDevice(ms={"fp32": 2.0, "int8": 1.0, "int8-2": 0.8})
    seen = run(tmp_path, "cpu-x86_64", (1, 1), device)
    assert device.asked == [("latencies", "fp32", "int8", "int8-2")]
    assert (seen["shipped"], seen["quantized"]) == (b"more", b"more")
    assert (seen["int8"], seen["restored"], seen["chosen"]) == (["c/Conv"], [True, True], [B])
    assert seen["ms"][1:] == pytest.approx([1.0, 0.8])
    assert seen["how"] == [NOT_MEASURED, "measured", "measured"]  # what misses is not worth a timing
    assert seen["where"] == "a board (a CPU)"
    assert seen["note"].startswith(
        "restored layers, the fastest that keeps to quantize.max_drop on a board (a CPU): all in INT8 "
    )
    assert seen["note"].endswith(
        "ms by estimate, 90.00 %, missed; 1 restored 1 ms, 90.00 %, met; 2 restored 0.8 ms, 90.00 %, met, chosen"
    )
    assert "0.8" not in json.dumps(seen["recipe"])  # timings are not shipped


@pytest.mark.parametrize("other", [0.97, 1.0, 1.2])
def test_what_is_not_shown_to_be_faster_takes_no_place(tmp_path: Path, other: float) -> None:
    seen = run(tmp_path, "cpu-x86_64", (1, 1), FakeDevice(ms={"fp32": 2.0, "int8": 1.0, "int8-2": other}))
    assert (seen["shipped"], seen["quantized"], seen["chosen"]) == (b"given", b"given", [A])
    assert (seen["int8"], seen["restored"]) == (["b/Conv", "c/Conv"], [True, False])


def test_fp32_that_is_faster_still_is_shipped_and_the_candidate_is_the_fastest_int8(tmp_path: Path) -> None:
    seen = run(tmp_path, "cpu-x86_64", (1, 1), FakeDevice(ms={"fp32": 0.5, "int8": 1.0, "int8-2": 0.8}))
    assert (seen["shipped"], seen["quantized"]) == (b"fp32", b"more")
    assert seen["note"].endswith("2 restored 0.8 ms, 90.00 %, met, chosen")
    assert seen["rest"][0].startswith("FP32 is shipped: INT8 is not 1.05 times as fast as FP32 on this machine")


@pytest.mark.parametrize("target", ["rpi5", "jetson"])
@pytest.mark.parametrize(("kilobytes", "shipped"), [((500, 100), b"more"), ((100, 99), b"given"), ((1, 5), b"given")])
def test_for_another_machine_the_estimate_decides_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, kilobytes: tuple[int, int], shipped: bytes
) -> None:
    monkeypatch.setattr(compile_stage, "build_settings", lambda *_: None)
    seen = run(tmp_path, target, kilobytes)
    assert seen["shipped"] == seen["quantized"] == shipped
    assert seen["how"] == [NOT_MEASURED] * 3
    assert seen["ms"][0] > max(seen["ms"][1:])
    assert seen["note"].count("ms by estimate") == 3
    assert seen["where"] == load_target(target).profile.title


def test_what_follows_reads_the_graph_that_was_chosen(tmp_path: Path) -> None:
    steps = {step.name: step for step in planned(tmp_path).steps}
    assert steps["evaluate-quantized"].inputs["model"] == Output("compile", "quantized.onnx")
    assert steps["compile"].inputs["tried"] == Output("quantize", "tried")
    assert steps["package"].inputs["layers"] == Output("compile", "layers.json")
    assert steps["verify"].inputs["sensitivity"] == Output("compile", "sensitivity.json")


def test_what_is_offered_again_must_say_so() -> None:
    first, later = Offers({"layers": Output("a", "x")}), {"layers": Output("b", "y")}
    assert first.and_of(Offers(later, instead=("layers",))).outputs == later
    with pytest.raises(ValueError, match="layers is offered by an earlier stage too"):
        first.and_of(Offers(later))
