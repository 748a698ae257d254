"""Which of FP32 and INT8 is shipped, and the recipe that travels with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from dlx_deploy.config import Config
from dlx_deploy.devices.device import Device
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.runtime.engine.settings import BuildSettings
from dlx_deploy.stages import compile as compile_stage
from dlx_deploy.stages.compile import STAGE, notes
from dlx_deploy.stages.support.engine import CompileParams
from dlx_deploy.stages.support.layer_precisions import LayerPrecisions
from dlx_deploy.targets import load_target
from dlx_deploy.targets.roofline import LayerCost

from ..datasets import held_images
from ..devices.fake import FakeDevice
from .support.planning import planned


def run(
    folder: Path, target: str, device: Device | None = None, **params: Any
) -> tuple[bytes, dict[str, Any], dict[str, float]]:
    """The shipped bytes, the recipe and the metrics."""
    inputs = {"onnx": folder / "fp32.onnx", "quantized": folder / "int8.onnx", "data": folder / "data"}
    inputs["onnx"].write_bytes(b"fp32")
    inputs["quantized"].write_bytes(params.pop("quantized", b"int8"))
    inputs["layers"] = folder / "layers.json"
    precision = inputs["quantized"].read_bytes().decode()
    half = "fp16" if target == "jetson" else "fp32"
    plan = LayerPrecisions(precision=precision, elsewhere=half, layers={"a/Conv": precision, "b/Conv": "fp32"})
    inputs["layers"].write_bytes(canonical_json(plan))
    out = folder / "out"
    out.mkdir()
    metrics = STAGE.run(Job(CompileParams(**params), inputs, out, load_target(target).profile, device=device))
    assert sorted(p.name for p in out.iterdir()) == sorted(STAGE.outputs)
    return (out / "model.onnx").read_bytes(), json.loads((out / "recipe.json").read_text()), metrics


@pytest.fixture(autouse=True)
def no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of these tests are words; ``support/test_hazards`` has graphs."""
    written = b'{"operators": [], "schema": 1}'
    monkeypatch.setattr(compile_stage, "write_operators", lambda out: (out / "operators.json").write_bytes(written))
    monkeypatch.setattr("dlx_deploy.graph.analysis.islands.island_words", lambda source: "")
    monkeypatch.setattr("dlx_deploy.graph.analysis.islands.island_costs", lambda source: [])


def noted(folder: Path, metrics: dict[str, float]) -> Any:
    """What is said of the finished step."""
    outputs = {name: folder / "out" / name for name in STAGE.outputs}
    return notes(Config(), load_target("cpu-x86_64").profile, outputs, metrics)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Milliseconds per model, one or in the order measured, that a device finds; the CPU target is one."""
    ms: dict[str, Any] = {"fp32": 1.0, "int8": 0.5}

    monkeypatch.setattr(
        "dlx_deploy.nn.data.dataset.open_data",
        lambda path: held_images(np.zeros((4, 8, 8, 1), np.uint8), only="validation"),
    )
    return ms


@pytest.mark.parametrize("target", ["cpu-x86_64", "rpi5"])
def test_what_the_configuration_names_is_shipped_untimed(target: str, tmp_path: Path) -> None:
    shipped, recipe, metrics = run(tmp_path, target, precision="int4", quantized=b"int4", engine="off")
    assert (shipped, recipe["precision"], metrics["int8"]) == (b"int4", "int4", 0.0)
    assert (recipe["elsewhere"], recipe["reason"]) == ("fp32", "the configuration asks for INT4")


@pytest.mark.parametrize(
    ("fp32", "int8", "shipped"), [(1.0, 0.5, b"int8"), (1.0, 0.97, b"fp32"), (1.0, 2.0, b"fp32"), (1.06, 1.0, b"int8")]
)
def test_the_faster_is_shipped(
    tmp_path: Path, times: dict[str, float], fp32: float, int8: float, shipped: bytes
) -> None:
    times.update(fp32=fp32, int8=int8)
    model, recipe, metrics = run(tmp_path, "cpu-x86_64", FakeDevice(ms=times))
    assert model == shipped
    assert recipe["precision"] == shipped.decode()
    assert metrics["int8_speedup"] == pytest.approx(fp32 / int8)
    assert not {"int8_speedup", "int8_latency_p50_ms"} & set(recipe)  # timings are not shipped


@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        ("cpu-x86_64", r"floating point; set quantize\.precision = 'fp32' to leave INT8 out"),
        ("rpi5", r"floating point; set quantization\.kernels in the target's profile if the CPU is one of avx2, "),
    ],
)
def test_int8_that_loses_says_by_what(
    target: str, remedy: str, tmp_path: Path, times: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlx_deploy.graph.analysis.islands.island_words", lambda source: "19 HardSwish and 9 Mul")
    times.update(fp32=1.0, int8=2.0)
    model, recipe, metrics = run(tmp_path, target, FakeDevice(ms=times))
    assert model == b"fp32"
    assert re.search(r"INT8 is not 1\.05 times .*; between its layers 19 HardSwish and 9 Mul are", recipe["reason"])
    assert re.search(remedy, recipe["reason"])
    assert noted(tmp_path, metrics) == [f"FP32 is shipped: {recipe['reason']}"]


def test_one_lucky_moment_decides_nothing(tmp_path: Path, times: dict[str, Any]) -> None:
    """The ratio of the medians is 1.06, and half of the time it is under 1.05."""
    times.update(fp32=np.tile([1.02, 1.02, 1.11, 1.11], 10), int8=1.0)
    model, recipe, metrics = run(tmp_path, "cpu-x86_64", FakeDevice(ms=times))
    assert metrics["int8_speedup_lower"] < 1.05 < metrics["int8_speedup"] < metrics["int8_speedup_upper"]
    assert model == b"fp32"
    assert "is undecided, and then FP32 stays: raise compile.rounds" in recipe["reason"]
    (note,) = noted(tmp_path, metrics)
    assert "INT8 is 1.02 to 1.11 times as fast as FP32 here, and compile.min_speedup is 1.05: undecided" in note


def test_a_burst_slows_both_and_changes_nothing(tmp_path: Path, times: dict[str, Any]) -> None:
    busy = np.where(np.arange(40) % 13 < 5, 3.0, 1.0)
    times.update(fp32=1.2 * busy, int8=busy)
    model, recipe, metrics = run(tmp_path, "cpu-x86_64", FakeDevice(ms=times))
    assert (model, metrics["int8_speedup_lower"]) == (b"int8", pytest.approx(1.2))
    assert "paired timings, 95 % confidence" in recipe["reason"]
    assert not noted(tmp_path, metrics)


def test_few_rounds_decide_nothing(tmp_path: Path, times: dict[str, Any]) -> None:
    times.update(fp32=2.0, int8=1.0)
    model, recipe, metrics = run(tmp_path, "cpu-x86_64", FakeDevice(ms=times, rounds=4))
    assert (model, "undecided" in recipe["reason"]) == (b"fp32", True)
    assert "int8_speedup_lower" not in metrics
    assert noted(tmp_path, metrics)


@pytest.mark.parametrize(("memory_bytes", "shipped"), [(0, b"int8"), (100_000_000, b"fp32")])
def test_for_another_machine_the_estimate_decides(
    tmp_path: Path, times: dict[str, Any], monkeypatch: pytest.MonkeyPatch, memory_bytes: int, shipped: bytes
) -> None:
    """INT8 computes faster there; with the traffic that its Q/DQ nodes add it may be slower all the same."""

    def costs(path: Path) -> list[LayerCost]:
        dtype = path.read_bytes().decode()
        more = memory_bytes if dtype == "int8" else 0
        layer = {"macs": 10_000_000, "weight_bytes": 100, "input_bytes": 100 + more, "output_bytes": 100}
        return [LayerCost(name="a", op="Conv", dtype=dtype, **layer)]  # type: ignore[arg-type]

    monkeypatch.setattr("dlx_deploy.graph.analysis.cost.layer_costs", costs)
    model, recipe, metrics = run(tmp_path, "rpi5")
    assert model == shipped
    assert (metrics["int8_estimate_ms"] < metrics["fp32_estimate_ms"]) is (shipped == b"int8")
    assert f"{metrics['int8_estimate_ms']:.3g} ms for INT8" in recipe["reason"]
    assert "the roofline estimate, not a measurement" in recipe["reason"]
    assert "a build on that machine would decide" in recipe["reason"]
    assert "int8_speedup" not in metrics


def test_a_wish_is_granted(tmp_path: Path, times: dict[str, float]) -> None:
    times.update(int8=9.0)
    assert run(tmp_path, "cpu-x86_64", FakeDevice(ms=times), precision="int8")[0] == b"int8"


def test_nothing_to_choose(tmp_path: Path, times: dict[str, float]) -> None:
    model, recipe, _ = run(tmp_path, "cpu-x86_64", FakeDevice(ms=times), quantized=b"fp32")
    assert (model, recipe["reason"]) == (b"fp32", "the quantize stage kept FP32")


def test_tensorrt_gets_a_build_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dlx_deploy.graph.model.load", lambda path: helper.make_model(helper.make_graph([], "g", [], []))
    )
    model, recipe, _ = run(tmp_path, "jetson", batch=4)
    assert model == b"int8"
    assert recipe["fixed_batch"] == 4
    assert recipe["backends"] == ["tensorrt", "onnxruntime-cuda", "onnxruntime-cpu"]
    assert (recipe["precision"], recipe["elsewhere"]) == ("int8", "fp16")
    settings = BuildSettings.from_dict(recipe["engine"], "recipe")
    assert settings.batch == (4, 4, 4)
    assert settings.strongly_typed
    assert settings.workspace_mib == load_target("jetson").profile.workspace_mib
    assert settings.layers == {"a/Conv": "int8"}
    assert not settings.sparse_weights  # the graph has no weights that are 2:4
    assert compile_stage.STAGE.measures_host


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["compile.dla_core=7"], r"compile\.dla_core is 7"),
    ],
)
def test_what_a_plan_refuses(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("overrides", "target", "message"),
    [
        (["compile.engine=required"], "rpi5", r"compile\.engine is 'required', and rpi5 \(cpu\) runs no engine"),
    ],
)
def test_what_a_plan_refuses_of_a_target(tmp_path: Path, overrides: list[str], target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides, target=target)
