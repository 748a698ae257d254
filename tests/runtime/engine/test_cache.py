"""Sidecars and the engine cache: what is loaded, what is rebuilt and why, and what two processes or a kill leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.runtime.engine import cache as cache_module
from dlx_deploy.runtime.engine import cuda as cuda_module
from dlx_deploy.runtime.engine.build import BuiltEngine
from dlx_deploy.runtime.engine.cache import EngineCache, check_shipped, default_folder
from dlx_deploy.runtime.engine.cuda import GpuFacts
from dlx_deploy.runtime.engine.settings import BuildSettings
from dlx_deploy.runtime.engine.sidecar import (
    EngineKey,
    Sidecar,
    differences,
    make_sidecar,
    read_sidecar,
    this_machine,
    to_bytes,
)
from dlx_deploy.runtime.engine.table import EngineLayer, PrecisionTable
from dlx_deploy.runtime.errors import BackendMissing, EngineError, PackageError

HERE = EngineKey("tensorrt", "10.3.0", "Linux", "aarch64", "digest", "8.7", "Orin", 8, "15W", "12.6")
SETTINGS = BuildSettings("tensorrt", "int8", (1, 1, 16), layers={"a": "int8"})
TABLE = PrecisionTable("inspector", (EngineLayer("a", "convolution", "int8", ("a",)),))


def engine(plan: bytes = b"plan bytes") -> BuiltEngine:
    return BuiltEngine(plan, TABLE, "tensorrt", "10.3.0", 12.5, 900.0, 512, (), ())


class Builder:
    """Counts its builds."""

    def __init__(self) -> None:
        self.timing: list[Path] = []

    def __call__(self, timing_cache: Path) -> BuiltEngine:
        self.timing.append(timing_cache)
        return engine()


@pytest.fixture
def store(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def entry(store: EngineCache) -> Path:
    [path] = [p.parent for p in store.folder.glob("*/engine.plan")]
    return path


def test_built_once_then_found(store: EngineCache) -> None:
    builder, said = Builder(), []
    first = store.get(HERE, SETTINGS, builder, said.append)
    second = store.get(HERE, SETTINGS, None, said.append)
    assert (first.origin, second.origin, len(builder.timing)) == ("built", "cache", 1)
    assert second.plan == b"plan bytes" == (entry(store) / "engine.plan").read_bytes()  # TensorRT's own bytes
    assert second.sidecar == first.sidecar
    assert (second.sidecar.build_s, second.sidecar.peak_memory_mib) == (12.5, 900.0)
    assert said == ["no engine for this machine is cached: there is none of this package"]
    assert builder.timing[0].parent == store.folder / "timing"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "10.13.0"),
        ("compute_capability", "8.6"),
        ("gpu", "Orin NX"),
        ("sm_count", 16),
        ("power_mode", "MAXN"),
        ("arch", "x86_64"),
        ("system", "QNX"),
        ("flavour", "tensorrt-rtx"),
    ],
)
def test_whatever_differs_is_named_and_rebuilt(store: EngineCache, field: str, value: Any) -> None:
    store.get(HERE, SETTINGS, Builder(), lambda text: None)
    other, said = replace(HERE, **{field: value}), []
    with pytest.raises(
        EngineError, match=rf"{field}: the engine is for .*, here is {value}\), and building .* forbidden"
    ):
        store.get(other, SETTINGS, None, said.append)
    assert store.get(other, SETTINGS, Builder(), said.append).origin == "built"
    assert said == [
        f"no engine for this machine is cached: {field}: the engine is for {getattr(HERE, field)}, here is {value}"
    ]


def test_other_settings_are_another_engine(store: EngineCache) -> None:
    store.get(HERE, SETTINGS, Builder(), lambda text: None)
    with pytest.raises(EngineError, match="settings: it was built with others"):
        store.get(HERE, replace(SETTINGS, batch=(1, 1, 32)), None, lambda text: None)


def test_another_driver_is_no_difference(store: EngineCache) -> None:
    store.get(HERE, SETTINGS, Builder(), lambda text: None)
    assert store.get(replace(HERE, driver="13.0"), SETTINGS, None, lambda text: None).origin == "cache"


def damage_plan(path: Path) -> None:
    data = bytearray((path / "engine.plan").read_bytes())
    data[0] ^= 1
    (path / "engine.plan").write_bytes(data)


def cut_plan(path: Path) -> None:
    (path / "engine.plan").write_bytes((path / "engine.plan").read_bytes()[:-1])


def cut_sidecar(path: Path) -> None:
    (path / "engine.json").write_bytes((path / "engine.json").read_bytes()[:-9])


def newer_sidecar(path: Path) -> None:
    values = json.loads((path / "engine.json").read_text())
    (path / "engine.json").write_text(json.dumps({**values, "schema": 2}))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (damage_plan, "the engine's SHA-256 is not the one in its sidecar: it is damaged"),
        (cut_plan, "the engine has 9 bytes and its sidecar says 10: it is cut short"),
        (cut_sidecar, "no JSON"),
        (newer_sidecar, r"schema is 2; this version reads up to 1; use a newer dlx-deploy"),
        (lambda path: (path / "engine.plan").unlink(), "the plan beside the sidecar is missing"),
        (lambda path: (path / "engine.json").unlink(), "there is none of this package"),
    ],
)
def test_a_damaged_engine_is_never_loaded(store: EngineCache, harm: Any, why: str) -> None:
    store.get(HERE, SETTINGS, Builder(), lambda text: None)
    harm(entry(store))
    with pytest.raises(EngineError, match=why):
        store.get(HERE, SETTINGS, None, lambda text: None)
    builder = Builder()
    assert store.get(HERE, SETTINGS, builder, lambda text: None).plan == b"plan bytes"
    assert len(builder.timing) == 1
    assert store.get(HERE, SETTINGS, None, lambda text: None).origin == "cache"


@pytest.mark.parametrize("step", [0, 1])
def test_a_write_that_fails_leaves_nothing_that_loads(
    store: EngineCache, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls, said = os.replace, [], []

    def fail(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) == step + 1:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(cache_module.os, "replace", fail)
    assert store.get(HERE, SETTINGS, Builder(), said.append).origin == "built"  # used all the same
    assert "cannot be kept" in said[-1]
    assert "No space left on device" in said[-1]
    monkeypatch.undo()
    with pytest.raises(EngineError, match="no engine for this machine is cached"):
        store.get(HERE, SETTINGS, None, said.append)
    assert not list(store.folder.glob("*/.*"))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store, said = EngineCache(tmp_path / "file" / "engines"), []
    assert store.get(HERE, SETTINGS, Builder(), said.append).origin == "built"
    assert "engines cannot be kept in" in said[-1]


WORKER = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from dlx_deploy.runtime.engine.cache import EngineCache
import importlib.util
spec = importlib.util.spec_from_file_location("worker_tests", {file!r})
tests = importlib.util.module_from_spec(spec); spec.loader.exec_module(tests)
folder = Path({folder!r})
def build(timing):
    with open(folder / "builds", "a") as f: f.write("x")
    (folder / "started").touch()
    time.sleep({seconds})
    return tests.engine()
say = lambda text: print(text, file=sys.stderr)
print(EngineCache(folder / "engines").get(tests.HERE, tests.SETTINGS, build, say).origin)
"""


def worker(folder: Path, seconds: float) -> subprocess.Popen[str]:
    code = WORKER.format(tests=str(Path(__file__).parent), file=__file__, folder=str(folder), seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def test_two_processes_build_once(tmp_path: Path) -> None:
    first = worker(tmp_path, 1.5)
    wait_for(tmp_path / "started")
    second = worker(tmp_path, 1.5)
    origins = [first.communicate()[0].strip(), second.communicate()[0].strip()]
    assert origins == ["built", "cache"]
    assert (tmp_path / "builds").read_text() == "x"


def test_a_killed_builder_leaves_no_lock(tmp_path: Path) -> None:
    first = worker(tmp_path, 60)
    wait_for(tmp_path / "started")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert worker(tmp_path, 0).communicate()[0].strip() == "built"
    assert (tmp_path / "builds").read_text() == "xx"


def shipped(**key: Any) -> tuple[bytes, bytes]:
    sidecar = make_sidecar(replace(HERE, package_digest=None, **key), SETTINGS, engine(), timed=False)
    return b"plan bytes", to_bytes(sidecar)


def test_an_engine_in_a_package() -> None:
    several = {"compute_capability": "8.6,8.7", "gpu": None, "sm_count": None, "power_mode": None}
    assert check_shipped(*shipped(**several), HERE, "engine.json") == []
    other = replace(HERE, compute_capability="9.0", version="11.0")
    assert check_shipped(*shipped(**several), other, "engine.json") == [
        "version: the engine is for 10.3.0, here is 11.0",
        "compute_capability: the engine is for 8.6,8.7, here is 9.0",
    ]
    with pytest.raises(PackageError, match=r"engine\.json: the engine has 3 bytes .* copy or build the package again"):
        check_shipped(b"pla", shipped()[1], HERE, "engine.json")


def test_a_shipped_sidecar_holds_no_timings() -> None:
    assert shipped() == shipped()
    assert json.loads(shipped()[1])["build_s"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan_sha256": "x"}, "plan_sha256 is 'x', which is of the wrong kind: must be 64 hex digits"),
        ({"plan_size": 0}, "plan_size is 0"),
        ({"settings": []}, "settings is"),
        ({"build_s": "1"}, "build_s is '1'"),
        ({"more": 1}, "a field is missing or unknown .*more"),
        ({"key": {"flavour": "tensorrt"}}, "a field is missing or unknown"),
        ({"schema": "1"}, "it has no schema number"),
    ],
)
def test_a_sidecar_is_read_strictly(change: dict[str, Any], message: str) -> None:
    values = {**json.loads(shipped()[1]), **change}
    with pytest.raises(PackageError, match=f"engine.json: .*{message}"):
        read_sidecar(json.dumps(values).encode(), "engine.json")


def test_a_sidecar_comes_back() -> None:
    sidecar = make_sidecar(HERE, SETTINGS, engine())
    read = read_sidecar(to_bytes(sidecar), "x")
    assert isinstance(read, Sidecar)
    assert read.key == HERE
    assert BuildSettings.from_dict(read.settings, "x") == SETTINGS
    assert PrecisionTable.from_dict(read.precision) == TABLE
    assert differences(read.key, HERE) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flavour": "x"}, "flavour is 'x'; must be one of tensorrt, tensorrt-rtx"),
        ({"precision": "int3"}, "precision is 'int3'"),
        ({"batch": [2, 1, 4]}, r"batch is \(2, 1, 4\); must be three whole numbers, 1 <= min <= opt <= max"),
        ({"batch": "all"}, "batch is 'all'"),
        ({"workspace_mib": -1}, "workspace_mib is -1"),
        ({"dla_core": -1}, "dla_core is -1"),
        ({"layers": {"a": "int3"}}, "layers is"),
        ({"weak_types": ["fp8"]}, "weak_types is"),
        ({"speed": 1}, "'speed' is not a build setting; known: batch, "),
    ],
)
def test_settings_are_read_strictly(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=f"recipe: {message}"):
        BuildSettings.from_dict({**SETTINGS.to_dict(), **change}, "recipe")
    with pytest.raises(PackageError, match="recipe: batch, flavour, precision missing"):
        BuildSettings.from_dict({}, "recipe")


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "dlx-deploy" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder().parts[-3:] == (".cache", "dlx-deploy", "engines")


@pytest.mark.parametrize(
    ("flavour", "capability", "runs"),
    [
        ("tensorrt-rtx", "7.5", True),
        ("tensorrt-rtx", "8.9", True),
        ("tensorrt-rtx", "12.1", True),
        ("tensorrt-rtx", "8.7", False),
        ("tensorrt-rtx", "9.0", False),
        ("tensorrt-rtx", "11.0", False),
        ("tensorrt", "9.0", True),
    ],
)
def test_a_gpu_that_tensorrt_rtx_does_not_run_on_is_as_if_absent(
    flavour: str, capability: str, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_module, "gpu_facts", lambda: GpuFacts("Some GPU", capability, 8, "13.0"))
    if runs:
        assert this_machine(None, flavour, "1.7.1").compute_capability == capability
        return
    with pytest.raises(BackendMissing, match=rf"Some GPU has {capability}: use TensorRT or onnxruntime-cuda"):
        this_machine(None, flavour, "1.7.1")
