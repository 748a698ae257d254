"""What runs a package: the first backend of its order that is there, by name, or none; and the engine's way to it."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from dlx_deploy.runtime.backends.choice import open_backend
from dlx_deploy.runtime.backends.names import DEFAULT_ORDER, BackendName
from dlx_deploy.runtime.backends.table import BACKENDS, BackendOptions, Running
from dlx_deploy.runtime.commands import actions as commands
from dlx_deploy.runtime.engine import open as opening
from dlx_deploy.runtime.engine.api import Api
from dlx_deploy.runtime.engine.build import BuiltEngine
from dlx_deploy.runtime.engine.settings import BuildSettings
from dlx_deploy.runtime.engine.sidecar import EngineKey, make_sidecar, to_bytes
from dlx_deploy.runtime.engine.table import EngineLayer, PrecisionTable
from dlx_deploy.runtime.errors import BackendMissing, EngineError, InputError, PackageError
from dlx_deploy.runtime.hazards import table as tables
from dlx_deploy.runtime.hazards.table import read_table
from dlx_deploy.runtime.package.contents import Package
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.telling import Tell

SOURCES = sorted((Path(__file__).parents[3] / "dlx_deploy" / "runtime").rglob("*.py"))
SETTINGS = BuildSettings("tensorrt", "int8", (1, 1, 4), layers={"a": "int8"})
HERE = EngineKey("tensorrt", "10.3.0", "Linux", "aarch64", None, "8.7", "Orin", 8, None, "12.6")
TABLE = PrecisionTable("inspector", (EngineLayer("a", "gemm", "int8", ("a",)),))


def with_recipe(package: Package, **recipe: Any) -> Package:
    return replace(package, meta={**package.meta, "recipe": recipe})


def silent(text: str) -> None:
    """Nobody listens."""


def test_the_first_that_is_there_and_why_not_the_others(package: Package, caplog: pytest.LogCaptureFixture) -> None:
    order = ["onnxruntime-tensorrt-rtx", "onnxruntime-cpu"]
    if "onnxruntime_ep_nv_tensorrt_rtx" in __import__("sys").modules:
        pytest.skip("the plugin is installed")
    backend = open_backend(with_recipe(package, backends=order), BackendOptions(threads=1), silent)
    assert backend.name == "onnxruntime-cpu"
    assert backend.describe().startswith(
        "backend: onnxruntime-cpu (passed over: onnxruntime-tensorrt-rtx: onnxruntime_ep_"
    )
    with caplog.at_level(logging.WARNING):
        Predictor(with_recipe(package, backends=order))
    assert "passed over" in caplog.text  # a fallback is never silent
    said: list[str] = []
    Predictor(with_recipe(package, backends=order), say=said.append)
    assert said == [backend.describe()]


def test_no_choice_nothing_said(package: Package, caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    Predictor(with_recipe(package, backends=["onnxruntime-cpu"]), say=said.append)
    Predictor(package)
    assert (said, caplog.text) == ([], "")


def test_one_by_name_or_an_error(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: Any) -> Any:
        raise BackendMissing("not here")

    monkeypatch.setitem(BACKENDS, "onnxruntime-cuda", replace(BACKENDS["onnxruntime-cuda"], open=missing))
    with pytest.raises(BackendMissing, match="not here"):
        open_backend(package, BackendOptions("onnxruntime-cuda"), silent)
    with pytest.raises(InputError, match="backend is 'gpu'; must be one of tensorrt, tensorrt-rtx"):
        open_backend(package, BackendOptions("gpu"), silent)
    with pytest.raises(BackendMissing, match="nothing on this machine runs the package: onnxruntime-cuda: not here"):
        open_backend(with_recipe(package, backends=["onnxruntime-cuda"]), BackendOptions(), silent)


@pytest.mark.parametrize("order", [["onnxruntime-cpu", "magic"], []])
def test_an_order_that_is_none(package: Package, order: list[str]) -> None:
    with pytest.raises(PackageError, match=r"recipe\.backends is .*; must be some of tensorrt, "):
        open_backend(with_recipe(package, backends=order), BackendOptions(), silent)


def test_a_backend_that_is_there_and_fails_is_an_error(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise EngineError("the engine does not compute as the plan asks")

    record = replace(BACKENDS["tensorrt"], open=broken, running=lambda package: Running("tensorrt", "1.0", tuple))
    monkeypatch.setitem(BACKENDS, "tensorrt", record)
    with pytest.raises(EngineError, match="does not compute"):
        open_backend(with_recipe(package, backends=["tensorrt", "onnxruntime-cpu"]), BackendOptions(), silent)


def built(plan: bytes = b"plan") -> BuiltEngine:
    return BuiltEngine(plan, TABLE, "tensorrt", "10.3.0", 3.25, 700.0, 512, (), ())


@contextlib.contextmanager
def telling_at_once(say: Callable[[str], None], what: str) -> Iterator[Tell]:
    yield lambda done, total, text: say(f"{what}: {done} of {total}, {text}")


@pytest.fixture
def board(package: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A package for TensorRT on a machine with a GPU, as far as the engine's way to it goes; counts builds."""
    builds: list[Path] = []

    def build(model: bytes, settings: BuildSettings, timing: Path, progress: Any) -> BuiltEngine:
        assert model == package.model
        builds.append(timing)
        progress("Building", 1, 2)
        return built()

    features = {"strongly_typed_flag": True, "weak_types": True}
    fake = type("Api", (), {"flavour": "tensorrt", "version": "10.3.0", "features": lambda self: features})()
    monkeypatch.setattr(opening, "load_api", lambda flavour: fake)
    monkeypatch.setattr(opening, "build_engine", build)
    monkeypatch.setattr(opening, "telling", telling_at_once)
    monkeypatch.setattr(opening, "this_machine", lambda digest, flavour, version: replace(HERE, package_digest=digest))
    monkeypatch.setattr(opening, "EngineSession", lambda api, plan, runtime_cache: (plan, runtime_cache))
    ready = with_recipe(package, backends=["tensorrt"], engine=SETTINGS.to_dict())
    return type("Board", (), {"package": ready, "builds": builds, "cache": str(tmp_path / "cache")})


def test_built_then_cached(board: Any) -> None:
    said: list[str] = []
    assert opening.open_engine(board.package, True, board.cache, said.append) == (b"plan", None)
    assert said[1:] == [
        "building the engine for this machine with tensorrt 10.3.0; this can take minutes",
        "building the engine: 1 of 2, Building",
    ]
    opening.open_engine(board.package, False, board.cache, said.append)
    assert (len(board.builds), len(said)) == (1, 3)


def test_no_build_refuses(board: Any) -> None:
    with pytest.raises(EngineError, match=r"none of this package.*forbidden; leave out --no-build"):
        open_backend(board.package, BackendOptions(build=False, cache=board.cache), silent)
    assert board.builds == []


def test_the_engine_in_the_package(board: Any) -> None:
    for key, origin in ((replace(HERE, sm_count=None), "package"), (replace(HERE, version="8.5.2"), "built")):
        said: list[str] = []
        sidecar = to_bytes(make_sidecar(key, SETTINGS, built(b"shipped")))
        package = replace(board.package, engine=b"shipped", engine_sidecar=sidecar)
        prepared = opening.prepare_engine(package, True, board.cache, said.append)
        assert prepared.origin == origin
        assert prepared.plan == (b"shipped" if origin == "package" else b"plan")
    assert said[0] == (
        "the engine in the package is not for this machine: version: the engine is for 8.5.2, here is 10.3.0"
    )


def test_the_command_describes_it(board: Any) -> None:
    outcome = commands.engine(board.package, True, board.cache, silent)
    assert outcome.text.splitlines() == [
        "tensorrt 10.3.0 for Orin, 4 bytes, from the build",
        "layers   int8 1 of 1 (100 %); 0 reformats",
        "built in 3.2 s, at most 700 MiB",
    ]
    assert outcome.data["origin"] == "built"
    assert outcome.data["sidecar"]["key"]["sm_count"] == 8
    assert commands.engine(board.package, True, board.cache, silent).data["origin"] == "cache"


def test_packages_without_an_engine(package: Package) -> None:
    with pytest.raises(EngineError, match="the package is for cpu-x86_64, which runs no TensorRT engine"):
        opening.engine_settings(package)
    with pytest.raises(PackageError, match=r"recipe\.engine is 3; must be a table"):
        opening.engine_settings(with_recipe(package, engine=3))


def test_an_api_is_asked_for_the_flavour_of_the_recipe(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(flavour: str) -> Api:
        asked.append(flavour)
        raise BackendMissing("no")

    monkeypatch.setattr(opening, "load_api", load)
    rtx = replace(SETTINGS, flavour="tensorrt-rtx")
    with pytest.raises(BackendMissing):
        opening.open_engine(with_recipe(package, engine=rtx.to_dict()), True, None, silent)
    assert asked == ["tensorrt-rtx"]


def test_a_cpu_backend_predicts(package: Package) -> None:
    predictor = Predictor(package, BackendOptions("onnxruntime-cpu", threads=1))
    logits = predictor.predict(package.golden_inputs).logits
    np.testing.assert_allclose(logits, package.golden_outputs["logits"], atol=1e-4)


def test_every_backend_that_is_named_can_be_opened() -> None:
    assert set(get_args(BackendName)) == set(BACKENDS)
    assert set(DEFAULT_ORDER) <= set(BACKENDS)


@pytest.mark.parametrize("source", [p for p in SOURCES if p.name not in ("names.py", "table.py")], ids=lambda p: p.name)
def test_nothing_asks_for_a_backend_by_its_name(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    assert not re.findall(rf"startswith\([\"']onnx|[\"'](?:{'|'.join(n for n in BACKENDS if '-' in n[9:])})[\"']", text)


def known_wrong(monkeypatch: pytest.MonkeyPatch, *names: str, action: str = "refuse") -> None:
    """A table that says that these backends compute Gemm wrong."""
    entry = {
        "id": "gemm",
        "title": "Gemm is computed wrong",
        "backends": list(names),
        "versions": [["1.0", None]],
        "when": {"operators": ["Gemm"]},
        "effect": "nothing is right",
        "evidence": ["a test"],
        "action": action,
        "remedy": "use another",
    }
    table = read_table({"schema": 1, "date": "2026-11-26", "hazards": [entry]})
    monkeypatch.setattr(tables, "hazard_table", lambda: table)


def test_a_backend_that_computes_this_graph_wrong_is_passed_over(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_wrong(monkeypatch, "onnxruntime-cuda")
    record = replace(BACKENDS["onnxruntime-cpu"], running=BACKENDS["onnxruntime-cuda"].running)
    monkeypatch.setitem(BACKENDS, "onnxruntime-cuda", record)  # as if it were here
    order = with_recipe(package, backends=["onnxruntime-cuda", "onnxruntime-cpu"])
    backend = open_backend(order, BackendOptions(threads=1), silent)
    assert backend.name == "onnxruntime-cpu"
    assert backend.skipped[0].startswith("onnxruntime-cuda: Gemm is computed wrong on onnxruntime-cuda from 1.0 (gemm)")
    said: list[str] = []
    taken = open_backend(order, BackendOptions(threads=1, accept_hazards=True), said.append)
    assert (taken.name, len(said)) == ("onnxruntime-cuda", 1)
    assert said[0].startswith("warning: onnxruntime-cuda is known to compute this wrong: Gemm is computed wrong")


def test_where_nothing_else_may_run_it_the_error_says_why(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    known_wrong(monkeypatch, "onnxruntime-cpu")
    with pytest.raises(BackendMissing, match=r"nothing on this machine .*: onnxruntime-cpu: Gemm .*; use another"):
        open_backend(package, BackendOptions(threads=1), silent)
    with pytest.raises(BackendMissing, match=r"onnxruntime-cpu is not used: Gemm .*; --accept-hazards uses it"):
        open_backend(package, BackendOptions("onnxruntime-cpu", threads=1), silent)


def test_an_engine_that_would_be_wrong_is_not_built(board: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known_wrong(monkeypatch, "tensorrt")
    with pytest.raises(EngineError, match=r"tensorrt: Gemm is computed wrong on tensorrt from 1\.0"):
        open_backend(board.package, BackendOptions(cache=board.cache), silent)
    assert board.builds == []
    said: list[str] = []
    commands.engine(board.package, True, board.cache, said.append)
    assert said[0].startswith("warning: this engine is known to compute wrong: Gemm")


def test_what_is_only_warned_of_is_said_and_run(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    known_wrong(monkeypatch, "onnxruntime-cpu", action="warn")
    said: list[str] = []
    assert open_backend(package, BackendOptions(threads=1), said.append).name == "onnxruntime-cpu"
    assert [text.split(":")[0] for text in said] == ["warning"]
