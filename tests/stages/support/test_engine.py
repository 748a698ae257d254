"""Which builder compiles what, what it is told, and what is shipped of it."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.config import Compile, Config
from dlx_deploy.errors import ConfigError, EnvironmentMissing
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.runtime.engine.cache import check_shipped
from dlx_deploy.runtime.engine.sidecar import EngineKey
from dlx_deploy.runtime.errors import EngineError
from dlx_deploy.stages.support import engine
from dlx_deploy.stages.support.engine import CompileParams, build_settings, builder_for, compile_engine, missing_builder
from dlx_deploy.stages.support.layer_precisions import LayerPrecisions
from dlx_deploy.targets import Profile, load_target
from dlx_deploy.targets.checks import check


def profile(name: str) -> Profile:
    return load_target(name).profile


def config(**keys: Any) -> Config:
    return Config(compile=Compile(**keys))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The distributions that seem to be installed; none at first."""
    versions: dict[str, str] = {}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(engine.metadata, "version", version)
    return versions


def test_the_builder_that_is_there(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert builder_for(config(), profile("jetson")) == ""
    assert "tensorrt-rtx is not installed, so the graph is not compiled as a check" in missing_builder(
        config(), profile("jetson")
    )
    assert "so the package holds no engine; install it with" in missing_builder(config(), profile("rtx"))
    assert (
        missing_builder(config(), profile("cpu-x86_64")) == missing_builder(config(engine="off"), profile("rtx")) == ""
    )
    installed["tensorrt-rtx"] = "1.7.1"
    assert {builder_for(config(), profile(name)) for name in ("jetson", "rtx", "h100")} == {"tensorrt-rtx 1.7.1"}
    assert missing_builder(config(), profile("jetson")) == ""
    assert builder_for(config(engine="off"), profile("rtx")) == ""
    assert {builder_for(config(), profile(name)) for name in ("cpu-x86_64", "jetson-nano")} == {""}
    installed["tensorrt"] = "10.13"
    assert builder_for(config(), profile("a100")) == "tensorrt-rtx 1.7.1"  # its GPU is not in this machine
    monkeypatch.setattr(engine, "has_gpu_of", lambda target: target.name == "a100")
    assert builder_for(config(), profile("a100")) == "tensorrt 10.13"
    assert builder_for(config(), profile("rtx")) == "tensorrt-rtx 1.7.1"


def test_an_engine_that_is_required(installed: dict[str, str]) -> None:
    with pytest.raises(EnvironmentMissing, match=r"compile\.engine is 'required', and tensorrt-rtx is not installed"):
        builder_for(config(engine="required"), profile("rtx"))


def test_dla_cores_of_the_target(installed: dict[str, str]) -> None:
    assert builder_for(config(dla_core=1), profile("agx-orin")) == ""
    with pytest.raises(ConfigError, match=r"compile\.dla_core is 0; jetson-orin-nano-8gb has 0 DLA cores"):
        builder_for(config(dla_core=0), profile("jetson"))


def graph(folder: Path, weights: np.ndarray | None = None, scales: int = 1) -> Path:
    """A quantized convolution ``a/Conv``, float32 x[n, 8, 8, 8] → y."""
    weights = np.ones((8, 8, 3, 3), np.int8) if weights is None else weights
    constants = {
        "xs": np.full((scales,) if scales > 1 else (), 0.05, np.float32),
        "xz": np.zeros((scales,) if scales > 1 else (), np.int8),
        "w": weights,
        "ws": np.full(8, 0.01, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "xs", "xz"], ["d"], axis=1),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=0),
        helper.make_node("Conv", ["d", "wd"], ["y"], name="a/Conv", pads=[1, 1, 1, 1]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 8, 8, 8]) for n in "xy"]
    made = helper.make_graph(
        nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(v, n) for n, v in constants.items()]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


PLAN = LayerPrecisions(precision="int8", elsewhere="fp32", layers={"a/Conv": "int8", "b/Conv": "fp32"})


def job(folder: Path, target: Profile, model: Path | None = None, **params: Any) -> Job:
    model = model or graph(folder)
    return Job(CompileParams(**params), {"quantized": model}, folder, target)


def test_what_the_builder_is_told(tmp_path: Path) -> None:
    sizes = {"opt_batch": 2, "max_batch": 8}
    told = build_settings(job(tmp_path, profile("jetson"), dla_core=0, optimization_level=4, **sizes), PLAN)
    assert told is not None
    assert (told.flavour, told.precision, told.batch, told.layers) == (
        "tensorrt",
        "int8",
        (1, 2, 8),
        {"a/Conv": "int8"},
    )
    assert (told.dla_core, told.optimization_level, told.workspace_mib) == (0, 4, 1024)
    assert told.compute_capabilities == ()
    rtx = build_settings(job(tmp_path, profile("rtx"), batch=4), PLAN)
    assert rtx is not None
    assert (rtx.batch, rtx.compute_capabilities) == ((4, 4, 4), ("8.6", "8.9", "12.0"))
    one = build_settings(job(tmp_path, profile("rtx-4090")), PLAN)
    assert one is not None
    assert one.compute_capabilities == ("8.9",)
    assert build_settings(job(tmp_path, profile("jetson-nano")), PLAN) is None


def test_weak_types_where_the_graph_cannot_hold_them(tmp_path: Path) -> None:
    weak = LayerPrecisions(precision="int8", elsewhere="fp16", strongly_typed=False, layers={"a/Conv": "int8"})
    told = build_settings(job(tmp_path, profile("xavier-nx")), weak)
    assert told is not None
    assert (told.strongly_typed, told.weak_types) == (False, ("int8", "fp16"))


def test_sparse_kernels_only_for_sparse_weights(tmp_path: Path) -> None:
    weights = np.ones((8, 8, 3, 3), np.int8) * (np.arange(8) % 4 < 2)[None, :, None, None].astype(np.int8)
    for target, kept, sparse in (("jetson", weights, True), ("jetson", None, False), ("xavier-nx", weights, False)):
        told = build_settings(job(tmp_path, profile(target), graph(tmp_path, kept)), PLAN)
        assert told is not None
        assert told.sparse_weights is sparse


def test_nothing_is_built_without_a_builder(tmp_path: Path) -> None:
    outcome, metrics = compile_engine(job(tmp_path, profile("jetson")), None)
    assert (outcome, metrics) == ("none", {})
    assert [p.name for p in (tmp_path / "engine").iterdir()] == ["report.json"]


@pytest.mark.parametrize(("target", "outcome"), [("rtx", "shipped"), ("jetson", "checked")])
def test_shipped_or_checked(target: str, outcome: str, tmp_path: Path) -> None:
    version = pytest.importorskip("tensorrt_rtx").__version__
    given = job(tmp_path, profile(target), builder=f"tensorrt-rtx {version}")
    result, metrics = compile_engine(given, build_settings(given, PLAN))
    assert result == outcome
    assert metrics["engine_int8_share"] == 1.0
    report = json.loads((tmp_path / "engine" / "report.json").read_text())
    assert report["status"] == outcome
    assert report["layers"] == "int8 1 of 1 (100 %); 0 reformats"
    files = {p.name for p in (tmp_path / "engine").iterdir()} - {"report.json"}
    if outcome == "checked":
        assert files == set()
        return
    assert files == {"engine.plan", "engine.json"}
    plan, sidecar = ((tmp_path / "engine" / name).read_bytes() for name in ("engine.plan", "engine.json"))
    here = EngineKey("tensorrt-rtx", version, "Linux", "x86_64", "any", "8.9", "RTX 4090", 128, None, "13.0")
    assert check_shipped(plan, sidecar, here, "x") == []
    other = EngineKey("tensorrt-rtx", version, "Linux", "x86_64", "any", "9.0", "H100", 132, None, "13.0")
    assert check_shipped(plan, sidecar, other, "x") == [
        "compute_capability: the engine is for 8.6,8.9,12.0, here is 9.0"
    ]


def test_a_check_that_finds_lost_int8_fails_the_stage(tmp_path: Path) -> None:
    version = pytest.importorskip("tensorrt_rtx").__version__
    given = job(tmp_path, profile("jetson"), graph(tmp_path, scales=8), builder=f"tensorrt-rtx {version}")
    with pytest.raises(EngineError, match="a/Conv: asked for int8, the engine computes it in fp32"):
        compile_engine(given, build_settings(given, PLAN))


def test_an_engine_for_several_gpus_is_for_the_targets_too() -> None:
    with pytest.raises(
        ConfigError, match=r"mine: engine_capabilities is \['8\.9'\], compute_capability '8\.6'; rule: "
    ):
        check(replace(profile("rtx"), engine_capabilities=("8.9",)), "mine")
