"""One adapter for every TensorRT: what is called on each recorded version, and what is refused on which."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dlx_deploy.runtime.engine.api import Api, RawBuild, load_api
from dlx_deploy.runtime.engine.settings import BuildSettings
from dlx_deploy.runtime.errors import BackendMissing, EngineError

from .fake_trt import TABLES, VERSIONS, World, fake_tensorrt

FULL = tuple(v for v in VERSIONS if not v.startswith("rtx"))
INT8 = BuildSettings("tensorrt", "int8", (1, 2, 16), layers={"a": "int8"}, workspace_mib=512)


def api(version: str, world: World | None = None) -> Api:
    return Api(fake_tensorrt(version, world), "tensorrt-rtx" if version.startswith("rtx") else "tensorrt")


def build(
    version: str, settings: BuildSettings = INT8, world: World | None = None, **given: Any
) -> tuple[RawBuild, World]:
    opened = api(version, world)
    seen: list[Any] = given.pop("seen", [])
    raw = opened.build(
        b"onnx", settings, given.pop("cache", b""), settings.workspace_mib, lambda *step: seen.append(step)
    )
    return raw, opened.module.world


def flags(world: World) -> set[str]:
    return {flag.name for (flag,) in world.made("set_flag")}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds(version: str) -> None:
    raw, world = build(version, cache=b"known")
    assert raw.plan == b"plan"
    assert world.made("set_shape") == [("images", (1, 8, 8, 3), (2, 8, 8, 3), (16, 8, 8, 3))]
    assert len(world.made("add_optimization_profile")) == 1
    if version.startswith("rtx"):
        assert (raw.inspection, raw.timing_cache) == (None, b"")
        assert raw.ignored == ("workspace_mib: tensorrt-rtx 1.7.0 chooses no tactics by it",)
        assert not world.made("create_timing_cache")
    else:
        assert (raw.inspection, raw.timing_cache, raw.ignored) == (world.inspection, b"timings", ())
        assert world.made("create_timing_cache") == [(b"known",)]
        [(pool, size)] = world.made("set_memory_pool_limit")
        assert (pool.name, size) == ("WORKSPACE", 512 * 1024**2)
    assert world.set["profiling_verbosity"].name == "DETAILED"


@pytest.mark.parametrize(
    ("version", "creation", "builder"),
    [
        ("8.5", {"EXPLICIT_BATCH"}, {"INT8"}),
        ("8.6", {"EXPLICIT_BATCH"}, {"INT8"}),
        ("10.3", {"EXPLICIT_BATCH", "STRONGLY_TYPED"}, set()),
        ("10.13", {"EXPLICIT_BATCH", "STRONGLY_TYPED"}, set()),
        ("11.4", {"STRONGLY_TYPED"}, set()),
        ("rtx-1.7", {"STRONGLY_TYPED"}, set()),
    ],
)
def test_types_are_asked_for_as_each_version_can(version: str, creation: set[str], builder: set[str]) -> None:
    _, world = build(version)
    known = TABLES[version]["enums"]["NetworkDefinitionCreationFlag"]
    [(bits,)] = world.made("create_network")
    assert {name for name, bit in known.items() if bits >> bit & 1} == creation
    assert flags(world) == builder


@pytest.mark.parametrize("version", FULL)
def test_weak_types_are_flags_where_there_are_any(version: str) -> None:
    raw, world = build(version, replace(INT8, strongly_typed=False, weak_types=("int8", "fp16")))
    if version == "11.4":
        assert flags(world) == set()
        assert raw.ignored[0].startswith(
            "weak_types: tensorrt 11.4.0 takes every type from the graph, so what is not INT8"
        )
    else:
        assert flags(world) == {"INT8", "FP16"}
        [(bits,)] = world.made("create_network")
        assert bits == 1  # explicit batch alone


@pytest.mark.parametrize("version", ["8.5", "10.3", "11.4"])
def test_fp32_needs_no_flag(version: str) -> None:
    assert flags(build(version, replace(INT8, precision="fp32", layers={}))[1]) == set()


def test_fp16_in_the_graph_needs_its_flag_on_8() -> None:
    assert flags(build("8.6", replace(INT8, precision="fp16", layers={"a": "fp16"}))[1]) == {"FP16"}
    assert flags(build("8.6", replace(INT8, layers={"a": "int8", "b": "fp16"}))[1]) == {"INT8", "FP16"}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_only_speeds_up_is_done_or_named(version: str) -> None:
    raw, world = build(version, replace(INT8, sparse_weights=True, optimization_level=2))
    if version.startswith("rtx"):
        assert {text.partition(":")[0] for text in raw.ignored} == {
            "workspace_mib",
            "sparse_weights",
            "optimization_level",
        }
    else:
        assert "SPARSE_WEIGHTS" in flags(world)
        if version == "8.5":
            assert raw.ignored == ("optimization_level: tensorrt 8.5.0 has none",)
        else:
            assert world.set["builder_optimization_level"] == 2


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", ["version_compatible", "hardware_compatible"])
def test_compatible_engines(version: str, key: str) -> None:
    settings = replace(INT8, **{key: True})
    if version in ("8.5", "rtx-1.7"):
        with pytest.raises(EngineError, match=f"{key} is true; .* builds no such engine; set it to false"):
            build(version, settings)
        return
    _, world = build(version, settings)
    assert ("VERSION_COMPATIBLE" in flags(world)) == (key == "version_compatible")
    level = world.set.get("hardware_compatibility_level")
    assert (level.name if level is not None else None) == ("AMPERE_PLUS" if key == "hardware_compatible" else None)


@pytest.mark.parametrize("version", FULL)
def test_a_dla_core_with_the_gpu_for_the_rest(version: str) -> None:
    world = World()
    world.dla_cores = 2
    build(version, replace(INT8, dla_core=1), world)
    assert (world.set["default_device_type"].name, world.set["DLA_core"]) == ("DLA", 1)
    assert "GPU_FALLBACK" in flags(world)


@pytest.mark.parametrize(("version", "cores"), [("10.13", 0), ("8.5", 1), ("rtx-1.7", 2)])
def test_a_dla_core_that_is_not_there(version: str, cores: int) -> None:
    world = World()
    world.dla_cores = cores
    seen = 0 if version.startswith("rtx") else cores
    with pytest.raises(EngineError, match=rf"dla_core is 1; .* sees {seen} DLA cores .*leave it out"):
        build(version, replace(INT8, dla_core=1), world)


def test_capabilities_are_for_tensorrt_rtx() -> None:
    _, world = build("rtx-1.7", replace(INT8, compute_capabilities=("8.6", "12.0")))
    assert world.set["num_compute_capabilities"] == 2
    assert [(c.name, i) for c, i in world.made("set_compute_capability")] == [("SM86", 0), ("SM120", 1)]
    with pytest.raises(EngineError, match=r"builds for no GPU of compute capability 9\.0; it knows .*SM89"):
        build("rtx-1.7", replace(INT8, compute_capabilities=("9.0",)))
    with pytest.raises(EngineError, match=r"compute_capabilities is set; tensorrt 10.3.0 builds for the GPU of this"):
        build("10.3", replace(INT8, compute_capabilities=("8.6",)))


def test_fixed_batches() -> None:
    world = World()
    world.shape = (4, 8, 8, 3)
    build("10.3", replace(INT8, batch=(4, 4, 4)), world)
    assert not world.made("add_optimization_profile")
    with pytest.raises(EngineError, match=r"'images' has the fixed batch 4, and the settings ask for \[1, 2, 16\]"):
        build("10.3", INT8, world)
    world.shape = (-1, -1, 8, 3)
    with pytest.raises(EngineError, match=r"has the shape \[-1, -1, 8, 3\]; only its first dimension"):
        build("10.3", INT8, world)


@pytest.mark.parametrize("version", ["10.3", "11.4", "rtx-1.7"])
def test_progress_is_passed_on(version: str) -> None:
    world, seen = World(), []
    world.phases = [("Building", 2)]
    build(version, INT8, world, seen=seen)
    assert seen == [("Building", 0, 2), ("Building", 1, 2), ("Building", 2, 2), ("Building", 2, 2)]


def test_a_parser_alone_says_what_it_does_not_read() -> None:
    for version in VERSIONS:
        world = World()
        assert api(version, world).refused(b"onnx") == ""
        world.parse_errors = [{"desc": "no importer", "node": 3}]
        assert "cannot parse the graph, in 1 places: node number 3: no importer" in api(version, world).refused(b"onnx")


def test_a_parse_error_names_node_operator_and_rule() -> None:
    world = World()
    world.parse_errors = [{"node_name": "a/Conv", "node_operator": "Conv", "desc": "zero point is not 0", "node": 3}]
    with pytest.raises(
        EngineError, match=r"tensorrt 10\.3\.0 cannot parse .* 1 places: node 'a/Conv' \(Conv\): zero point"
    ):
        build("10.3", INT8, world)
    world.parse_errors = [{"desc": "no importer", "node": 3}]  # 8.x knows the number alone
    with pytest.raises(EngineError, match="node number 3: no importer; replace the operator"):
        build("8.6", INT8, world)
    world.parse_errors = []
    with pytest.raises(EngineError, match="it gives no reason"):
        build("8.6", INT8, world)


def test_a_failed_build_says_why_and_what_helps() -> None:
    world = World()
    world.plan = None
    world.says = [("INFO", "chatter"), ("ERROR", "Cuda failure: out of memory")]
    with pytest.raises(
        EngineError, match=r"cannot build the engine: Cuda failure: out of memory; the memory ran out: lower"
    ):
        build("10.3", INT8, world)
    world.says = [("WARNING", "odd"), ("INTERNAL_ERROR", "no implementation")]
    with pytest.raises(EngineError, match=r"cannot build the engine: odd; no implementation$"):
        build("10.3", INT8, world)


def test_warnings_are_kept_once_and_not_carried_over() -> None:
    world = World()
    world.says = [("WARNING", "slow"), ("WARNING", "slow")]
    opened = api("10.3", world)
    assert opened.build(b"", INT8, b"", 0, lambda *a: None).warnings == ("slow",)
    world.says = []
    assert opened.build(b"", INT8, b"", 0, lambda *a: None).warnings == ()


def test_a_plan_that_tensorrt_refuses() -> None:
    world = World()
    world.loads = False
    with pytest.raises(EngineError, match=r"tensorrt 10\.3\.0 cannot load the engine: it gives no reason"):
        api("10.3", world).deserialize(b"x")


@pytest.mark.parametrize(
    ("version", "call"),
    [
        ("11.4", lambda trt: trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH),
        ("11.4", lambda trt: trt.BuilderFlag.FP16),
        ("10.3", lambda trt: setattr(trt.IBuilderConfig(), "max_workspace_size", 1)),
        ("8.6", lambda trt: trt.IProgressMonitor),
        ("8.5", lambda trt: setattr(trt.IBuilderConfig(), "builder_optimization_level", 1)),
        ("11.4", lambda trt: trt.IBuilderConfig().int8_calibrator),
        ("10.3", lambda trt: trt.ICudaEngine().num_bindings),
        ("10.3", lambda trt: trt.IOptimizationProfile().set_shape("a", 1, 2, 3, 4)),
    ],
)
def test_the_net_catches_what_a_version_lacks(version: str, call: Callable[[Any], Any]) -> None:
    with pytest.raises((AttributeError, TypeError)):
        call(fake_tensorrt(version))


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BackendMissing, match=r"tensorrt_rtx cannot be imported .*pip install tensorrt-rtx"):
        load_api("tensorrt-rtx")
    with pytest.raises(BackendMissing, match="JetPack brings it on a Jetson"):
        load_api("tensorrt")
    with pytest.raises(EngineError, match="flavour is 'openvino'; must be one of tensorrt, tensorrt-rtx"):
        load_api("openvino")


def test_the_recorded_table_is_that_of_the_installed_tensorrt_rtx() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    table = TABLES["rtx-1.7"]
    missing = [
        f"{owner}.{name}"
        for owner, names in table["classes"].items()
        for name in names
        if not hasattr(getattr(trt, owner), name)
    ]
    assert missing == []
    assert load_api("tensorrt-rtx").features() == api("rtx-1.7").features() | {
        "runtime_cache": hasattr(trt, "IRuntimeCache")
    }
