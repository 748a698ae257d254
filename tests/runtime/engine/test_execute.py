"""How an engine is run, on a CUDA that lives in host memory; a real GPU is asked in tests/gpu."""

from __future__ import annotations

import importlib
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.engine import cuda as cuda_module
from dlx_deploy.runtime.engine.cuda import Cuda, load_cuda
from dlx_deploy.runtime.engine.execute import LANES, EngineSession
from dlx_deploy.runtime.errors import BackendMissing, EngineError, InputError

from .fake_cuda import FakeCuda, FakeEngine, PairEngine, api_for


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 1), dtype=np.uint8)


def expected(images: np.ndarray) -> np.ndarray:
    return (images.reshape(len(images), -1).sum(axis=1, dtype=np.float64)[:, None] * [1, 2, 3]).astype(np.float32)


def opened(**given: Any) -> tuple[EngineSession, FakeCuda, FakeEngine]:
    cuda = FakeCuda()
    engine = FakeEngine(cuda, given.pop("low", 1), given.pop("high", 4))
    return EngineSession(api_for(engine), b"plan", cuda=cuda, **given), cuda, engine  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_any_number_of_images(count: int) -> None:
    session, _, _ = opened()
    images = pictures(count)
    for _ in range(4):
        [answer] = session.run(["logits"], {"images": images})
        np.testing.assert_array_equal(answer, expected(images))
    assert session.batch_range == (1, 4)


def test_fewer_images_than_the_smallest_batch() -> None:
    session, _, _ = opened(low=4)
    np.testing.assert_array_equal(session.run(None, {"images": pictures(2)})[0], expected(pictures(2)))
    np.testing.assert_array_equal(session.run(None, {"images": pictures(5)})[0], expected(pictures(5)))


def test_what_is_given_back_is_the_callers() -> None:
    session, _, _ = opened()
    first = session.run(None, {"images": pictures(1, 1)})[0]
    before = first.copy()
    for seed in range(5):
        session.run(None, {"images": pictures(1, seed)})
    np.testing.assert_array_equal(first, before)


def test_what_is_lent_is_a_view() -> None:
    session, _, _ = opened()
    with session.lend({"images": pictures(2)}) as views:
        logits = views["logits"]
        assert logits.base is not None
        np.testing.assert_array_equal(logits, expected(pictures(2)))
    with (
        pytest.raises(InputError, match=r"5 samples are lent an output; the engine's largest batch is 4"),
        session.lend({"images": pictures(5)}),
    ):
        pass


def test_a_graph_after_two_runs_of_one_size() -> None:
    session, cuda, _ = opened()
    for _ in range(5):
        session.run(None, {"images": pictures(1)})
    assert (cuda.counts["captures"], cuda.counts["launches"]) == (1, 3)
    session.run(None, {"images": pictures(2)})  # the graph holds for one shape
    session.run(None, {"images": pictures(1)})
    assert (cuda.counts["captures"], cuda.counts["launches"]) == (1, 3)
    assert session.notes == []


def test_without_graphs() -> None:
    session, cuda, _ = opened(cuda_graphs=False)
    for _ in range(5):
        np.testing.assert_array_equal(session.run(None, {"images": pictures(1)})[0], expected(pictures(1)))
    assert (cuda.counts["captures"], cuda.counts["launches"]) == (0, 0)


def test_a_graph_that_cannot_be_captured_is_noted_once() -> None:
    session, cuda, _ = opened()
    cuda.refuse_capture = True
    for size in (1, 1, 1, 2, 2, 1, 1):
        np.testing.assert_array_equal(session.run(None, {"images": pictures(size)})[0], expected(pictures(size)))
    assert [note.split(":")[0] for note in session.notes] == [f"no CUDA graph for batches of {n}" for n in (1, 2)]


def test_threads_take_lanes_and_get_their_own_answers() -> None:
    session, cuda, engine = opened()
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(100):
            images = pictures(1 + i % 5, seed * 1000 + i)
            if not np.array_equal(session.run(None, {"images": images})[0], expected(images)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 1 <= engine.contexts <= LANES
    session.close()
    assert (cuda.memory, cuda.counts["streams"], cuda.counts["pinned"]) == ({}, 0, 0)


def test_a_failed_run_gives_its_lane_up() -> None:
    session, cuda, engine = opened()
    engine.broken = True
    for _ in range(LANES + 2):
        with pytest.raises(EngineError, match="execute_async_v3 failed"):
            session.run(None, {"images": pictures(1)})
    assert cuda.memory == {}
    engine.broken = False
    np.testing.assert_array_equal(session.run(None, {"images": pictures(1)})[0], expected(pictures(1)))


@pytest.mark.parametrize(
    ("outputs", "feeds", "message"),
    [
        (None, {"pixels": pictures(1)}, r"inputs \['pixels'\] .* were named; the engine has 'images' and 'logits'"),
        (["other"], {"images": pictures(1)}, r"outputs \['other'\] were named"),
        (
            None,
            {"images": pictures(1).astype(np.float32)},
            r"the input 'images' is float32\[1, 2, 2, 1\]; must be uint8\[N, 2, 2, 1\]",
        ),
        (None, {"images": pictures(1)[:0]}, "N at least 1"),
        (None, {"images": pictures(1)[0]}, r"uint8\[2, 2, 1\]"),
    ],
)
def test_bad_input(outputs: Any, feeds: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened()[0].run(outputs, feeds)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        (1, r"the engine has the inputs \['images'\] for batches \[\(1, 4\)\] and the outputs \[\]; must have some"),
        (0, r"the engine has the inputs \[\] for batches \[\] and the outputs \[\]; must have some of each"),
    ],
)
def test_an_engine_without_ends(ends: int, message: str) -> None:
    engine = FakeEngine(FakeCuda())
    engine.num_io_tensors = ends
    with pytest.raises(EngineError, match=message):
        EngineSession(api_for(engine), b"", cuda=engine.cuda)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_several_inputs_and_outputs(count: int) -> None:
    cuda = FakeCuda()
    session = EngineSession(api_for(PairEngine(cuda)), b"", cuda=cuda)  # type: ignore[arg-type]
    assert {name: end.describe() for name, end in session.inputs.items()} == {"a": "float32[N, 2]", "b": "int32[N, 1]"}
    rng = np.random.default_rng(0)
    for _ in range(4):
        feeds = {"b": rng.integers(-9, 9, (count, 1)).astype(np.int32), "a": rng.random((count, 2), np.float32)}
        total, copy = session.run(["total", "copy"], feeds)
        np.testing.assert_allclose(total, feeds["a"].sum(axis=1, keepdims=True) + feeds["b"], rtol=1e-5)
        np.testing.assert_array_equal(copy, feeds["b"])
        (alone,) = session.run(["copy"], feeds)
        np.testing.assert_array_equal(alone, feeds["b"])
    assert [array.dtype for array in session.run(None, feeds)] == [np.float32, np.int32]
    with pytest.raises(InputError, match=r"the input 'b' is int32\[9, 1\]; must be int32\[N, 1\], N at"):
        session.run(None, {**feeds, "b": np.zeros((9, 1), np.int32)})
    with pytest.raises(InputError, match=r"inputs \['a'\] .*; the engine has 'a', 'b' and 'total', 'copy'"):
        session.run(None, {"a": feeds["a"]})
    session.close()
    assert (cuda.memory, cuda.counts["streams"], cuda.counts["pinned"]) == ({}, 0, 0)


def test_inputs_of_different_batches_are_refused() -> None:
    engine = PairEngine(FakeCuda(), other_high=8)
    with pytest.raises(EngineError, match=r"batches \[\(1, 3\), \(1, 8\)\] .*; must have some of each, for one range"):
        EngineSession(api_for(engine), b"", cuda=engine.cuda)  # type: ignore[arg-type]


def test_the_runtime_cache_is_kept(tmp_path: Path) -> None:
    class Cache:
        data = b""

        def deserialize(self, data: bytes) -> None:
            self.data = data

        def serialize(self) -> bytes:
            return self.data + b"+"

    class Config:
        def __init__(self) -> None:
            self.cache: Any = None

        def create_runtime_cache(self) -> Cache:
            return Cache()

        def set_runtime_cache(self, cache: Cache) -> None:
            self.cache = cache

        def get_runtime_cache(self) -> Cache:
            return self.cache

    path = tmp_path / "runtime" / "a.cache"
    for expected_bytes in (b"+", b"++"):
        cuda = FakeCuda()
        engine = FakeEngine(cuda)
        engine.create_runtime_config = Config  # type: ignore[attr-defined]
        session = EngineSession(api_for(engine), b"", runtime_cache=path, cuda=cuda)  # type: ignore[arg-type]
        session.run(None, {"images": pictures(1)})
        assert path.read_bytes() == expected_bytes


def runtime_that_says(error: str, *values: Any) -> Any:
    result = (type("cudaError_t", (), {"name": error})(), *values)
    return type(
        "runtime",
        (),
        {"cudaGetDeviceCount": staticmethod(lambda: result), "cudaMalloc": staticmethod(lambda n: result)},
    )


@pytest.mark.parametrize(
    ("error", "values", "message"),
    [
        (
            "cudaErrorInsufficientDriver",
            (0,),
            r"driver is missing or too old for this CUDA \(cudaErrorInsufficientDriver\)",
        ),
        ("cudaErrorNoDevice", (0,), r"no NVIDIA GPU that CUDA can use \(cudaErrorNoDevice\)"),
        ("cudaSuccess", (0,), "no NVIDIA GPU that CUDA can use"),
    ],
)
def test_no_gpu(error: str, values: Any, message: str) -> None:
    with pytest.raises(BackendMissing, match=message):
        Cuda(runtime_that_says(error, *values)).require_device()


def test_a_cuda_error_is_named() -> None:
    with pytest.raises(
        EngineError, match="CUDA's cudaMalloc failed with cudaErrorMemoryAllocation; the GPU's memory is full"
    ):
        Cuda(runtime_that_says("cudaErrorMemoryAllocation", 0)).device_memory(1)


def test_no_cuda_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        BackendMissing, match="cuda-python cannot be imported; install it with: pip install cuda-python"
    ):
        load_cuda()


def test_this_machine_says_what_it_lacks() -> None:
    pytest.importorskip("cuda.bindings")
    try:
        load_cuda()
    except BackendMissing as e:
        assert "driver" in str(e) or "GPU" in str(e)  # noqa: PT017
    else:
        assert cuda_module.gpu_facts().sm_count > 0


def test_every_cuda_call_is_one_of_cuda_python() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    source = Path(cuda_module.__file__).read_text(encoding="utf-8")
    called = set(re.findall(r'_call\(\s*"(\w+)"', source)) | set(re.findall(r"self\._rt\.(\w+)", source))
    assert len(called) > 15
    assert {name for name in called if not hasattr(runtime, name)} == set()
