"""Running an engine: pinned buffers, one stream per concurrent call, and a CUDA graph while the batch size stays.

An execution context must not be used by two calls at once, so each concurrent call takes a *lane* (context, stream,
buffers) from a pool and puts it back. A lane costs the engine's activation memory; there are at most ``LANES``.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import EngineError, InputError
from ..files import write_atomically
from .api import Api
from .cache import MODE
from .cuda import Cuda, load_cuda

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LANES", "EngineSession"]

CAPTURE_AFTER = 2
"""Runs of one batch size before its CUDA graph: the first warms up, and a size that comes once is not worth one."""
LANES = 4
"""Calls that run at the same time; more wait. Beyond a few, a GPU gains nothing and memory is lost."""


class EngineSession:
    """A loaded engine with the call shape of an ``onnxruntime.InferenceSession``; many threads may call ``run``.

    ``notes``: why a CUDA graph is not used, if one was wanted and cannot be. ``runtime_cache``: the file that keeps
    what TensorRT-RTX compiles at the first run. ``cuda``: for tests.

    Raises:
        BackendMissing: cuda-python, the driver or a GPU is not here.
        EngineError: TensorRT refuses the plan, or it has other ends than one input and one output.
    """

    def __init__(
        self,
        api: Api,
        plan: bytes,
        cuda_graphs: bool = True,
        runtime_cache: Optional[Path] = None,
        cuda: Optional[Cuda] = None,
    ) -> None:
        self.notes: List[str] = []
        self.cuda = cuda or load_cuda()
        self._trt = api.module
        self._engine = api.deserialize(plan)
        self.cuda_graphs = cuda_graphs
        self.input_name, self.output_name = _ends(self._trt, self._engine)
        self._config = _runtime_config(self._engine, runtime_cache)
        self._cache_file = runtime_cache
        self._lanes: List[_Lane] = []
        self._made = 0
        self._free = threading.Condition()
        low, _, high = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(self.input_name, 0))
        self.batch_range: Tuple[int, int] = (int(low[0]), int(high[0]))
        self.input_shape: Tuple[int, ...] = tuple(int(n) for n in high[1:])
        self.input_dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(self.input_name)))

    def run(self, outputs: Optional[Sequence[str]], feeds: Mapping[str, NDArray[Any]]) -> List[NDArray[Any]]:
        """The output for one input array [N, ...], in a list; the caller owns it, and the input is only read.

        More images than the engine's largest batch are run in blocks; fewer than its smallest are filled up with zeros.

        Raises:
            InputError: other names, dtype or shape than the engine has.
            EngineError: CUDA or TensorRT fails.
        """
        images = self._checked(outputs, feeds)
        low, high = self.batch_range
        blocks = []
        with self._lane() as lane:
            for start in range(0, len(images), high):
                block = images[start : start + high]
                size = max(len(block), low)
                blocks.append(lane.run(block, size)[: len(block)].copy())
        return [blocks[0] if len(blocks) == 1 else np.concatenate(blocks)]

    @contextlib.contextmanager
    def lend(self, images: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """The output for at most one largest batch, without the copy: a view that is valid inside the ``with`` block.

        Raises:
            InputError, EngineError: as ``run``.
        """
        images = self._checked(None, {self.input_name: images})
        low, high = self.batch_range
        if len(images) > high:
            raise InputError(f"{len(images)} images are lent an output; the engine's largest batch is {high}")
        with self._lane() as lane:
            yield lane.run(images, max(len(images), low))[: len(images)]

    def close(self) -> None:
        """Gives all buffers and streams back; no call may be running."""
        with self._free:
            for lane in self._lanes:
                lane.close()
            self._made -= len(self._lanes)
            self._lanes.clear()

    def _checked(self, outputs: Optional[Sequence[str]], feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        if set(feeds) != {self.input_name} or (outputs is not None and list(outputs) != [self.output_name]):
            raise InputError(
                f"inputs {sorted(feeds)} and outputs {outputs} were named; the engine has {self.input_name!r} and "
                f"{self.output_name!r}"
            )
        images = feeds[self.input_name]
        if images.dtype != self.input_dtype or images.shape[1:] != self.input_shape or not len(images):
            raise InputError(
                f"the input is {images.dtype}{list(images.shape)}; must be {self.input_dtype}[N, "
                f"{', '.join(map(str, self.input_shape))}], N at least 1"
            )
        return images

    @contextlib.contextmanager
    def _lane(self) -> Iterator[_Lane]:
        with self._free:
            while not self._lanes and self._made >= LANES:
                self._free.wait()
            lane = self._lanes.pop() if self._lanes else None
            self._made += lane is None
        try:
            lane = lane or self._new_lane()
            yield lane
        except BaseException:
            with self._free:
                self._made -= 1
                self._free.notify()
            if lane is not None:  # its stream may hold half a call: it is not used again
                lane.close()
            raise
        with self._free:
            self._lanes.append(lane)
            self._free.notify()

    def _new_lane(self) -> _Lane:
        context = (
            self._engine.create_execution_context(self._config)
            if self._config is not None
            else self._engine.create_execution_context()
        )
        if context is None:
            raise EngineError("TensorRT creates no execution context; most likely the GPU's memory is full")
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(self.output_name)))
        return _Lane(self, context, dtype)

    def keep_runtime_cache(self) -> None:
        """Writes what TensorRT-RTX compiled to its file, whole or not at all; a folder that refuses costs only time."""
        if self._cache_file is None or self._config is None:
            return
        try:
            self._cache_file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._cache_file, bytes(self._config.get_runtime_cache().serialize()), MODE)
        except OSError as e:
            self.notes.append(f"the runtime cache cannot be kept ({e.strerror})")


class _Lane:
    """One context with its stream, buffers and graphs; used by one call at a time."""

    def __init__(self, session: EngineSession, context: Any, dtype: np.dtype[Any]) -> None:
        self._session, self._context = session, context
        self._cuda = session.cuda
        self._stream = self._cuda.stream()
        high = session.batch_range[1]
        context.set_input_shape(session.input_name, (high, *session.input_shape))
        shape = tuple(int(n) for n in context.get_tensor_shape(session.output_name))
        self._host_in = self._cuda.pinned((high, *session.input_shape), session.input_dtype)
        self._host_out = self._cuda.pinned(shape, dtype)
        self._device_in = self._cuda.device_memory(self._host_in.nbytes)
        self._device_out = self._cuda.device_memory(self._host_out.nbytes)
        context.set_tensor_address(session.input_name, self._device_in)
        context.set_tensor_address(session.output_name, self._device_out)
        self._size = high
        self._runs = 0  # since the batch size last changed
        self._graph: Any = None

    def run(self, images: NDArray[Any], size: int) -> NDArray[Any]:
        """The output of a batch of ``size``, whose first images are ``images``: a view of the pinned buffer."""
        self._host_in[: len(images)] = images
        self._host_in[len(images) : size] = 0
        if self._size != size:
            self._resize(size)
        if self._graph is not None:
            self._cuda.launch(self._graph, self._stream)
        else:
            self._enqueue(size)
        self._cuda.synchronize(self._stream)
        self._runs += 1
        if self._runs == 1:
            self._session.keep_runtime_cache()
        elif self._runs == CAPTURE_AFTER and self._session.cuda_graphs:
            self._graph = self._captured(size)
        return self._host_out[:size]

    def _resize(self, size: int) -> None:
        """Another batch size; a graph holds for the shape that its context had, and goes."""
        if not self._context.set_input_shape(self._session.input_name, (size, *self._session.input_shape)):
            raise EngineError(
                f"TensorRT refuses the batch size {size}; give fewer inputs at a time, or build for larger batches"
            )
        self._drop_graph()
        self._size, self._runs = size, 0

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._cuda.free_graph(self._graph)
        self._graph = None

    def _enqueue(self, size: int) -> None:
        self._cuda.upload(self._device_in, self._host_in[:size], self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise EngineError("TensorRT's execute_async_v3 failed; its reason is in the log")
        self._cuda.download(self._host_out[:size], self._device_out, self._stream)

    def _captured(self, size: int) -> Any:
        """The work of one batch as a graph, ``None`` (and a note) where it cannot be captured."""
        try:
            if not getattr(self._context, "is_stream_capturable", lambda stream: True)(self._stream):
                raise EngineError("TensorRT-RTX says that the stream cannot be captured")
            self._cuda.begin_capture(self._stream)
            try:
                self._enqueue(size)
            except EngineError:
                self._cuda.end_capture(self._stream)
                raise
            return self._cuda.end_capture(self._stream)
        except EngineError as e:
            note = f"no CUDA graph for batches of {size}: {e}"
            if note not in self._session.notes:
                self._session.notes.append(note)
            return None

    def close(self) -> None:
        self._drop_graph()
        self._cuda.free(self._device_in)
        self._cuda.free(self._device_out)
        self._cuda.free_pinned(self._host_in)
        self._cuda.free_pinned(self._host_out)
        self._cuda.free_stream(self._stream)


def _ends(trt: Any, engine: Any) -> Tuple[str, str]:
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(inputs) != 1 or len(outputs) != 1:
        raise EngineError(f"the engine has the inputs {inputs} and outputs {outputs}; one of each is run")
    return inputs[0], outputs[0]


def _runtime_config(engine: Any, file: Optional[Path]) -> Any:
    """TensorRT-RTX: a configuration with the cache of compiled kernels; ``None`` where there is no such thing."""
    if file is None or not hasattr(engine, "create_runtime_config"):
        return None
    config = engine.create_runtime_config()
    cache = config.create_runtime_cache()
    with contextlib.suppress(OSError):  # the first run on this machine
        cache.deserialize(file.read_bytes())
    config.set_runtime_cache(cache)
    return config
