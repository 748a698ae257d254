"""CUDA without a GPU: device memory is host memory, a stream does its work at once, and a graph is a list of calls."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from dlx_deploy.runtime.engine.cuda import GpuFacts
from dlx_deploy.runtime.errors import EngineError

__all__ = ["FakeCuda", "FakeEngine", "PairEngine", "api_for"]


class FakeCuda:
    """The methods of ``Cuda``; ``counts`` says what was used, and what was not given back."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.counts = {"launches": 0, "captures": 0, "streams": 0, "pinned": 0}
        self.recording: dict[int, list[Callable[[], Any]]] = {}
        self.refuse_capture = False
        self._lock = threading.Lock()

    def facts(self) -> GpuFacts:
        return GpuFacts("Fake GPU", "8.7", 8, "13.0")

    def do(self, stream: int, work: Callable[[], Any]) -> None:
        if stream in self.recording:
            self.recording[stream].append(work)
        else:
            work()

    def stream(self) -> int:
        with self._lock:
            self.counts["streams"] += 1
            return self.counts["streams"]

    def synchronize(self, stream: int) -> None:
        assert stream not in self.recording

    def device_memory(self, size: int) -> int:
        block = (ctypes.c_uint8 * max(size, 1))()
        with self._lock:
            self.memory[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def pinned(self, shape: Any, dtype: Any) -> np.ndarray:
        self.counts["pinned"] += 1
        return np.zeros(tuple(shape), dtype)

    def upload(self, device: int, host: np.ndarray, stream: int) -> None:
        self.do(stream, lambda: ctypes.memmove(device, host.ctypes.data, host.nbytes))

    def download(self, host: np.ndarray, device: int, stream: int) -> None:
        self.do(stream, lambda: ctypes.memmove(host.ctypes.data, device, host.nbytes))

    def begin_capture(self, stream: int) -> None:
        if self.refuse_capture:
            raise EngineError("CUDA's cudaStreamBeginCapture failed with cudaErrorStreamCaptureUnsupported")
        self.counts["captures"] += 1
        self.recording[stream] = []

    def end_capture(self, stream: int) -> Any:
        return self.recording.pop(stream)

    def launch(self, graph: Any, stream: int) -> None:
        self.counts["launches"] += 1
        for work in graph:
            work()

    def free(self, address: int) -> None:
        del self.memory[address]

    def free_pinned(self, array: np.ndarray) -> None:
        self.counts["pinned"] -= 1

    def free_graph(self, graph: Any) -> None:
        graph.clear()

    def free_stream(self, stream: int) -> None:
        self.counts["streams"] -= 1


class FakeEngine:
    """uint8[N, 2, 2, 1] → float32[N, 3]: the sum of the pixels, and that times 2 and 3."""

    num_io_tensors = 2

    def __init__(self, cuda: FakeCuda, low: int = 1, high: int = 4) -> None:
        self.cuda, self.low, self.high = cuda, low, high
        self.contexts = 0
        self.broken = False

    def get_tensor_name(self, index: int) -> str:
        return ("images", "logits")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "images" else "out"

    def get_tensor_dtype(self, name: str) -> Any:
        return np.uint8 if name == "images" else np.float32

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return [(n, 2, 2, 1) for n in (self.low, self.low, self.high)]

    def create_execution_context(self, config: Any = None) -> Any:
        self.contexts += 1
        return _Context(self)


class _Context:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.shape, self.addresses = engine, (0, 0, 0, 0), dict[str, int]()
        self.busy = threading.Lock()

    def set_input_shape(self, name: str, shape: Any) -> bool:
        self.shape = shape
        return self.engine.low <= shape[0] <= self.engine.high

    def get_tensor_shape(self, name: str) -> Any:
        return (self.shape[0], 3)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self.engine.broken:
            return False
        count = self.shape[0]

        def work() -> None:
            assert self.busy.acquire(blocking=False), "two calls use one context"
            given = np.frombuffer((ctypes.c_uint8 * (4 * count)).from_address(self.addresses["images"]), np.uint8)
            sums = given.reshape(count, 4).astype(np.float32).sum(axis=1)
            out = (ctypes.c_float * (3 * count)).from_address(self.addresses["logits"])
            np.frombuffer(out, np.float32).reshape(count, 3)[:] = sums[:, None] * [1, 2, 3]
            self.busy.release()

        self.engine.cuda.do(stream, work)
        return True


class PairEngine:
    """a: float32[N, 2] and b: int32[N, 1] → total: float32[N, 1], all of them summed, and copy: b; N from 1 to 3."""

    ends: ClassVar = {"a": (np.float32, 2), "b": (np.int32, 1), "total": (np.float32, 1), "copy": (np.int32, 1)}
    num_io_tensors = 4

    def __init__(self, cuda: FakeCuda, other_high: int = 3) -> None:
        self.cuda, self.highs = cuda, {"a": 3, "b": other_high}

    def get_tensor_name(self, index: int) -> str:
        return list(self.ends)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.highs else "out"

    def get_tensor_dtype(self, name: str) -> Any:
        return self.ends[name][0]

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return [(n, self.ends[name][1]) for n in (1, 1, self.highs[name])]

    def create_execution_context(self) -> Any:
        return _PairContext(self)


class _PairContext:
    def __init__(self, engine: PairEngine) -> None:
        self.engine, self.sizes, self.addresses = engine, dict[str, int](), dict[str, int]()

    def set_input_shape(self, name: str, shape: Any) -> bool:
        self.sizes[name] = shape[0]
        return 1 <= shape[0] <= 3

    def get_tensor_shape(self, name: str) -> Any:
        assert len(set(self.sizes.values())) == 1
        return (self.sizes["a"], self.engine.ends[name][1])

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        def view(name: str) -> np.ndarray:
            dtype, width = self.engine.ends[name]
            memory = (ctypes.c_uint8 * (4 * width * self.sizes["a"])).from_address(self.addresses[name])
            return np.frombuffer(memory, dtype).reshape(-1, width)

        def work() -> None:
            view("total")[:] = view("a").sum(axis=1, keepdims=True) + view("b")
            view("copy")[:] = view("b")

        self.engine.cuda.do(stream, work)
        return True


def api_for(engine: Any) -> Any:
    """An ``Api`` that gives this engine for any plan."""
    modes = type("TensorIOMode", (), {"INPUT": "in"})
    module = type("trt", (), {"TensorIOMode": modes, "nptype": staticmethod(lambda kind: kind)})
    return type("Api", (), {"module": module, "flavour": "tensorrt", "deserialize": lambda self, plan: engine})()
