"""Which of FP32 and INT8 is shipped, and the recipe that travels with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.runtime.bench import summarise
from dlx_deploy.runtime.engine.settings import BuildSettings
from dlx_deploy.stages import compile as compile_stage
from dlx_deploy.stages.compile import STAGE, CompileParams
from dlx_deploy.stages.quantize import PrecisionPlan
from dlx_deploy.targets import load_target


def run(folder: Path, target: str, **params: Any) -> tuple[bytes, dict[str, Any], dict[str, float]]:
    """The shipped bytes, the recipe and the metrics."""
    inputs = {"onnx": folder / "fp32.onnx", "quantized": folder / "int8.onnx", "data": folder / "data"}
    inputs["onnx"].write_bytes(b"fp32")
    inputs["quantized"].write_bytes(params.pop("quantized", b"int8"))
    inputs["layers"] = folder / "layers.json"
    precision = inputs["quantized"].read_bytes().decode()
    half = "fp16" if target == "jetson" else "fp32"
    plan = PrecisionPlan(precision=precision, elsewhere=half, layers={"a/Conv": precision, "b/Conv": "fp32"})
    inputs["layers"].write_bytes(canonical_json(plan))
    out = folder / "out"
    out.mkdir()
    metrics = STAGE.run(Job(CompileParams(**params), inputs, out, load_target(target).profile))
    assert sorted(p.name for p in out.iterdir()) == sorted(STAGE.outputs)
    return (out / "model.onnx").read_bytes(), json.loads((out / "recipe.json").read_text()), metrics


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Milliseconds per model that the timing finds; this machine is the CPU target."""
    ms = {"fp32": 1.0, "int8": 0.5}

    def measured(models: Any, row: Any, rounds: int, threads: int, pad_id: Any) -> Any:
        return {name: summarise([int(ms[name] * 1e6)] * 40) for name in models}

    class Data:
        padding = None

        def split(self, name: str) -> Any:
            assert name == "validation"  # never the test split: this is a choice
            return [None], [None]

    monkeypatch.setattr("dlx_deploy.nn.latency.interleaved_latency", measured)
    monkeypatch.setattr("dlx_deploy.nn.data.artifact.open_data", lambda path: Data())
    monkeypatch.setattr("dlx_deploy.targets.is_this_host", lambda profile: profile.name == "cpu-x86_64")
    return ms


@pytest.mark.parametrize(
    ("fp32", "int8", "shipped"), [(1.0, 0.5, b"int8"), (1.0, 0.97, b"fp32"), (1.0, 2.0, b"fp32"), (1.06, 1.0, b"int8")]
)
def test_the_faster_is_shipped(
    tmp_path: Path, times: dict[str, float], fp32: float, int8: float, shipped: bytes
) -> None:
    times.update(fp32=fp32, int8=int8)
    model, recipe, metrics = run(tmp_path, "cpu-x86_64")
    assert model == shipped
    assert recipe["precision"] == shipped.decode()
    assert metrics["int8_speedup"] == pytest.approx(fp32 / int8)
    assert not {"int8_speedup", "int8_latency_p50_ms"} & set(recipe)  # timings are not shipped


def test_what_is_not_this_machine_is_not_timed(tmp_path: Path, times: dict[str, float]) -> None:
    model, recipe, metrics = run(tmp_path, "rpi5")
    assert (model, metrics) == (b"int8", {"int8": 1.0, "engine_shipped": 0.0})
    assert "not the target" in recipe["reason"]


def test_a_wish_is_granted(tmp_path: Path, times: dict[str, float]) -> None:
    times.update(int8=9.0)
    assert run(tmp_path, "cpu-x86_64", precision="int8")[0] == b"int8"


def test_nothing_to_choose(tmp_path: Path, times: dict[str, float]) -> None:
    model, recipe, _ = run(tmp_path, "cpu-x86_64", quantized=b"fp32")
    assert (model, recipe["reason"]) == (b"fp32", "the quantize stage kept FP32")


def test_tensorrt_gets_a_build_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dlx_deploy.nn.onnx_model.load", lambda path: helper.make_model(helper.make_graph([], "g", [], []))
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
