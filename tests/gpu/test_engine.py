"""An engine on a real GPU: it runs, agrees with ONNX Runtime, is found again, and is refused where it is foreign."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.gpu


class Engine(NamedTuple):
    session: Any
    model: bytes
    here: Any
    asked: Any
    cache: Any
    api: Any
    precision: str


@pytest.fixture(scope="module")
def tools() -> Any:
    """The benchmark's own functions: the tests judge what it measures."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import engine_models
        import gpu_latency

        yield type("Tools", (), {"models": engine_models, "gpu": gpu_latency})
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8"])
def engine(request: pytest.FixtureRequest, tools: Any, folder: Path) -> Engine:
    """A ResNet-18's session, its ONNX, and how its engine was got."""
    from dlx_deploy.runtime.engine.api import load_api
    from dlx_deploy.runtime.engine.build import build_engine
    from dlx_deploy.runtime.engine.cache import EngineCache
    from dlx_deploy.runtime.engine.execute import EngineSession
    from dlx_deploy.runtime.engine.sidecar import this_machine
    from dlx_deploy.runtime.errors import BackendMissing

    try:
        flavour = tools.gpu.flavour_here()
        this_machine(None, flavour, load_api(flavour).version)
    except BackendMissing as e:
        pytest.skip(str(e))
    path, layers = tools.models.planned("resnet18", request.param, folder)
    asked = tools.models.settings(flavour, request.param, layers)
    api = load_api(flavour)
    here = this_machine(f"test {request.param}", flavour, api.version)
    cache, model = EngineCache(folder / "cache"), path.read_bytes()
    engine = cache.get(here, asked, lambda timing: build_engine(model, asked, timing), print)
    session = EngineSession(api, engine.plan)
    return Engine(session, model, here, asked, cache, api, request.param)


def test_it_agrees_with_onnx_runtime(engine: Engine, tools: Any) -> None:
    agreement = tools.gpu.parity(engine.session, engine.model, tools.models.images("resnet18", 64))
    assert agreement["cosine_min"] > 0.99
    assert agreement["psnr_db"] > 30
    assert agreement["top1_agreement"] >= (0.98 if engine.precision == "fp32" else 0.9)


def test_a_cache_hit_takes_less_than_a_second(engine: Engine) -> None:
    from dlx_deploy.runtime.engine.execute import EngineSession

    started = time.perf_counter()
    cached = engine.cache.get(engine.here, engine.asked, None, print)
    EngineSession(engine.api, cached.plan)
    assert (cached.origin, time.perf_counter() - started < 1.0) == ("cache", True)


def test_an_engine_of_another_gpu_is_not_loaded(engine: Engine) -> None:
    from dlx_deploy.runtime.errors import EngineError

    other = replace(engine.here, compute_capability="1.0")
    with pytest.raises(EngineError, match="compute_capability"):
        engine.cache.get(other, engine.asked, None, print)


def test_cuda_graphs_give_the_same_answers(engine: Engine, tools: Any) -> None:
    from dlx_deploy.runtime.engine.execute import EngineSession

    cached = engine.cache.get(engine.here, engine.asked, None, print)
    plain = EngineSession(engine.api, cached.plan, cuda_graphs=False)
    for count in (1, 3, 16, 20):  # beyond the profile's largest batch: in blocks
        pictures = tools.models.images("resnet18", count)
        feeds = {"images": pictures}
        for _ in range(3):
            np.testing.assert_array_equal(engine.session.run(None, feeds)[0], plain.run(None, feeds)[0])


def test_threads_do_not_mix_their_answers(engine: Engine, tools: Any) -> None:
    pictures = tools.models.images("resnet18", 8)
    alone = [engine.session.run(None, {"images": pictures[i : i + 1]})[0] for i in range(8)]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(50):
            got = engine.session.run(None, {"images": pictures[i : i + 1]})[0]
            if not np.allclose(got, alone[i], rtol=1e-3, atol=1e-3):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_package_runs_on_its_engine(built: Path, tmp_path: Path) -> None:
    """The tiny Jetson package on whatever GPU is here: the recipe builds anywhere that TensorRT itself is."""
    pytest.importorskip("tensorrt")
    from dlx_deploy.runtime.backends.table import BackendOptions
    from dlx_deploy.runtime.commands.selftest import self_test
    from dlx_deploy.runtime.package.contents import open_package
    from dlx_deploy.runtime.predictor import Predictor

    package = open_package(next((built / "dist").glob("*.dlx")))
    said: list[str] = []
    predictor = Predictor(package, BackendOptions("tensorrt", cache=str(tmp_path)), said.append)
    assert predictor.backend.name == "tensorrt"
    assert self_test(predictor).images == package.meta["golden"]["count"]
    assert any("building the engine" in text for text in said)
