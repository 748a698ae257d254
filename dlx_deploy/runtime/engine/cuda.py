"""The few calls of the CUDA runtime that running an engine takes, by cuda-python; every error is ours, by name."""

from __future__ import annotations

import ctypes
import importlib
from typing import Sequence

import numpy as np

from ..errors import BackendMissing, EngineError
from ..records import record
from ..untyped import Array, DType, Foreign

__all__ = ["Cuda", "GpuFacts", "gpu_facts", "load_cuda"]

MODULES = ("cuda.bindings.runtime", "cuda.cudart")  # cuda-python 12.6 and newer, and before
NO_DRIVER = ("cudaErrorInsufficientDriver", "cudaErrorInitializationError", "cudaErrorStubLibrary")


@record
class GpuFacts:
    """What an engine depends on: the name, the compute capability (``8.7``), the SM count and the driver's version."""

    name: str
    compute_capability: str
    sm_count: int
    driver: str


def load_cuda() -> Cuda:
    """The CUDA runtime, with at least one device.

    Raises:
        BackendMissing: cuda-python, the driver or a GPU is not here.
    """
    for name in MODULES:
        try:
            cuda = Cuda(importlib.import_module(name))
        except ImportError:
            continue
        cuda.require_device()
        return cuda
    raise BackendMissing("cuda-python cannot be imported; install it with: pip install cuda-python")


def gpu_facts() -> GpuFacts:
    """The first GPU of this machine.

    Raises:
        BackendMissing: as ``load_cuda``.
    """
    return load_cuda().facts()


class Cuda:
    """The runtime API in ``module``; addresses and streams are plain integers to the caller."""

    def __init__(self, module: Foreign) -> None:
        self._rt = module

    def require_device(self) -> None:
        """Nothing, if there is a GPU.

        Raises:
            BackendMissing: no driver, or no GPU.
        """
        try:
            error, *values = self._rt.cudaGetDeviceCount()
        except RuntimeError as e:  # cuda-python's own: libcuda cannot be loaded
            raise BackendMissing(f"the NVIDIA driver is not here ({e}); a GPU needs it") from e
        name = str(getattr(error, "name", error))
        if name in NO_DRIVER:
            raise BackendMissing(
                f"the NVIDIA driver is missing or too old for this CUDA ({name}); install a newer driver"
            )
        if name != "cudaSuccess" or not values[0]:
            raise BackendMissing(
                f"this machine has no NVIDIA GPU that CUDA can use ({name}); leave --backend out to run on the CPU"
            )

    def facts(self) -> GpuFacts:
        """The first GPU."""
        properties = self._call("cudaGetDeviceProperties", 0)
        driver = int(self._call("cudaDriverGetVersion"))
        name = properties.name
        return GpuFacts(
            name=(name.decode() if isinstance(name, bytes) else str(name)).strip("\0 "),
            compute_capability=f"{properties.major}.{properties.minor}",
            sm_count=int(properties.multiProcessorCount),
            driver=f"{driver // 1000}.{driver % 1000 // 10}",
        )

    def stream(self) -> int:
        """A new stream."""
        return int(self._call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking))

    def synchronize(self, stream: int) -> None:
        """Waits until all work in the stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def device_memory(self, size: int) -> int:
        """The address of ``size`` bytes on the device."""
        return int(self._call("cudaMalloc", max(size, 1)))

    def pinned(self, shape: Sequence[int], dtype: DType) -> Array:
        """An array in page-locked host memory; ``free_pinned`` gives it back."""
        count = int(np.prod(shape, dtype=np.int64))
        address = int(self._call("cudaHostAlloc", max(count * dtype.itemsize, 1), self._rt.cudaHostAllocDefault))
        raw = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
        return np.frombuffer(memoryview(raw), dtype, count).reshape(tuple(shape))

    def upload(self, device: int, host: Array, stream: int) -> None:
        """Starts copying ``host`` (contiguous, pinned) to the device."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", device, host.ctypes.data, host.nbytes, kind, stream)

    def download(self, host: Array, device: int, stream: int) -> None:
        """Starts copying from the device into ``host`` (contiguous, pinned)."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host.ctypes.data, device, host.nbytes, kind, stream)

    def begin_capture(self, stream: int) -> None:
        """From now on work in the stream is recorded and not done; other threads may go on as they like."""
        self._call("cudaStreamBeginCapture", stream, self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)

    def end_capture(self, stream: int) -> Foreign:
        """What was recorded, as a graph that can be launched."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            # CUDA 11's plain form takes a log buffer; this one is the same from 11.4 to 13.
            return self._call("cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Foreign, stream: int) -> None:
        """Does the graph's work in the stream."""
        self._call("cudaGraphLaunch", graph, stream)

    def free(self, address: int) -> None:
        """Gives device memory back."""
        self._call("cudaFree", address)

    def free_pinned(self, array: Array) -> None:
        """Gives page-locked memory back; nobody may read the array any more."""
        self._call("cudaFreeHost", array.ctypes.data)

    def free_graph(self, graph: Foreign) -> None:
        """Gives a graph back."""
        self._call("cudaGraphExecDestroy", graph)

    def free_stream(self, stream: int) -> None:
        """Gives a stream back."""
        self._call("cudaStreamDestroy", stream)

    def _call(self, function: str, *arguments: object) -> Foreign:
        """The value that a CUDA function gives beside its error code."""
        error, *values = getattr(self._rt, function)(*arguments)
        name = str(getattr(error, "name", error))
        if name != "cudaSuccess":
            memory = "; the GPU's memory is full: use a smaller batch" if "MemoryAllocation" in name else ""
            raise EngineError(f"CUDA's {function} failed with {name}{memory}")
        return values[0] if values else None
