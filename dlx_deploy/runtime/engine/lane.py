"""One execution context of an engine: pinned buffers, a stream, and a CUDA graph while the batch size stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Mapping, Tuple

from ..errors import EngineError
from ..records import record
from ..untyped import Array, DType, Foreign

if TYPE_CHECKING:
    from .execute import EngineSession

__all__ = ["CAPTURE_AFTER", "End", "Lane"]

CAPTURE_AFTER = 2
"""Runs of one batch size before its CUDA graph: the first warms up, and a size that comes once is not worth one."""


@record
class End:
    """An input or output of an engine; ``shape`` is that of one sample."""

    name: str
    shape: Tuple[int, ...]
    dtype: DType

    def describe(self) -> str:
        """The end, for people."""
        return f"{self.dtype}[{', '.join(map(str, ('N', *self.shape)))}]"


class Lane:
    """One context with its stream, buffers and graphs; used by one call at a time."""

    def __init__(self, session: EngineSession, context: Foreign, dtypes: Mapping[str, DType]) -> None:
        self._session, self._context = session, context
        self._cuda = session.cuda
        self._stream = self._cuda.stream()
        high = session.batch_range[1]
        self._set_shapes(high)  # which those of the outputs follow from
        shapes = {name: tuple(int(n) for n in context.get_tensor_shape(name)) for name in dtypes}
        self._given = {name: self._buffers((high, *end.shape), end.dtype) for name, end in session.inputs.items()}
        self._answers = {name: self._buffers(shapes[name], dtype) for name, dtype in dtypes.items()}
        for name, (_, device) in {**self._given, **self._answers}.items():
            context.set_tensor_address(name, device)
        self._size = high
        self._runs = 0  # since the batch size last changed
        self._graph: Foreign = None

    def run(self, feeds: Mapping[str, Array], size: int) -> Dict[str, Array]:
        """The outputs of a batch of ``size``, whose first samples are ``feeds``: views of the pinned buffers."""
        for name, (host, _) in self._given.items():
            count = len(feeds[name])
            host[:count] = feeds[name]
            host[count:size] = 0
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
        return {name: host[:size] for name, (host, _) in self._answers.items()}

    def _buffers(self, shape: Tuple[int, ...], dtype: DType) -> Tuple[Array, int]:
        """Pinned memory, and as much of the device's."""
        host = self._cuda.pinned(shape, dtype)
        return host, self._cuda.device_memory(host.nbytes)

    def _set_shapes(self, size: int) -> bool:
        ends = self._session.inputs.items()
        return all(self._context.set_input_shape(name, (size, *end.shape)) for name, end in ends)

    def _resize(self, size: int) -> None:
        """Another batch size; a graph holds for the shape that its context had, and goes."""
        if not self._set_shapes(size):
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
        for host, device in self._given.values():
            self._cuda.upload(device, host[:size], self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise EngineError("TensorRT's execute_async_v3 failed; its reason is in the log")
        for host, device in self._answers.values():
            self._cuda.download(host[:size], device, self._stream)

    def _captured(self, size: int) -> Foreign:
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
        """Gives buffers, stream and graph back."""
        self._drop_graph()
        for host, device in (*self._given.values(), *self._answers.values()):
            self._cuda.free(device)
            self._cuda.free_pinned(host)
        self._cuda.free_stream(self._stream)
