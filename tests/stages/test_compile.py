"""Which of FP32 and INT8 is shipped, and the recipe that travels with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.pipeline.stage import Job
from dlx_deploy.runtime.bench import summarise
from dlx_deploy.stages import compile as compile_stage
from dlx_deploy.stages.compile import STAGE, CompileParams
from dlx_deploy.targets import load_target


def run(folder: Path, target: str, **params: Any) -> tuple[bytes, dict[str, Any], dict[str, float]]:
    """The shipped bytes, the recipe and the metrics."""
    inputs = {"onnx": folder / "fp32.onnx", "quantized": folder / "int8.onnx", "data": folder / "data"}
    inputs["onnx"].write_bytes(b"fp32")
    inputs["quantized"].write_bytes(params.pop("quantized", b"int8"))
    out = folder / "out"
    out.mkdir()
    metrics = STAGE.run(Job(CompileParams(**params), inputs, out, load_target(target).profile))
    assert sorted(p.name for p in out.iterdir()) == sorted(STAGE.outputs)
    return (out / "model.onnx").read_bytes(), json.loads((out / "recipe.json").read_text()), metrics


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Milliseconds per model that the timing finds; this machine is the CPU target."""
    ms = {"fp32": 1.0, "int8": 0.5}

    def measured(models: Any, image: Any, rounds: int, threads: int) -> Any:
        return {name: summarise([int(ms[name] * 1e6)] * 40) for name in models}

    class Data:
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
    assert (model, metrics) == (b"int8", {"int8": 1.0})
    assert "not the target" in recipe["reason"]


def test_a_wish_is_granted(tmp_path: Path, times: dict[str, float]) -> None:
    times.update(int8=9.0)
    assert run(tmp_path, "cpu-x86_64", precision="int8")[0] == b"int8"


def test_nothing_to_choose(tmp_path: Path, times: dict[str, float]) -> None:
    model, recipe, _ = run(tmp_path, "cpu-x86_64", quantized=b"fp32")
    assert (model, recipe["reason"]) == (b"fp32", "the quantize stage kept FP32")


def test_tensorrt_gets_a_build_recipe(tmp_path: Path, times: dict[str, float]) -> None:
    profile = load_target("jetson").profile
    model, recipe, _ = run(tmp_path, "jetson", batch=4)
    assert model == b"int8"
    assert recipe["batch"] == {"min": 4, "opt": 4, "max": 4}
    assert recipe["fixed_batch"] == 4
    assert recipe["compute_capability"] == profile.compute_capability == "8.7"
    assert recipe["strongly_typed"] is True
    assert compile_stage.STAGE.measures_host
