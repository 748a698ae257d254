"""Running an engine: a pool of lanes, from which each concurrent call takes one.

An execution context must not be used by two calls at once, so each concurrent call takes a *lane* (context, stream,
buffers) from a pool and puts it back. A lane costs the engine's activation memory; there are at most ``LANES``.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import EngineError, InputError
from ..files import write_atomically
from ..untyped import Array, DType, Foreign
from .api import Api
from .cache import MODE
from .cuda import Cuda, load_cuda
from .lane import End, Lane

__all__ = ["LANES", "EngineSession"]

LANES = 4
"""Calls that run at the same time; more wait. Beyond a few, a GPU gains nothing and memory is lost."""


class EngineSession:
    """A loaded engine with the call shape of an ``onnxruntime.InferenceSession``; many threads may call ``run``.

    ``notes``: why a CUDA graph is not used, if one was wanted and cannot be. ``runtime_cache``: the file that keeps
    what TensorRT-RTX compiles at the first run. ``cuda``: for tests.

    Raises:
        BackendMissing: cuda-python, the driver or a GPU is not here.
        EngineError: TensorRT refuses the plan, or it has no input, no output, or inputs of different batch sizes.
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
        self._engine = api.deserialize(plan)
        self.cuda_graphs = cuda_graphs
        self.inputs, self._output_dtypes, self.batch_range = _ends(api.module, self._engine)
        self._config = _runtime_config(self._engine, runtime_cache)
        self._cache_file = runtime_cache
        self._lanes: List[Lane] = []
        self._made = 0
        self._free = threading.Condition()

    def run(self, outputs: Optional[Sequence[str]], feeds: Mapping[str, Array]) -> List[Array]:
        """The named ``outputs`` (``None``: all) for input arrays [N, ...]; the caller owns them, inputs are only read.

        More samples than the engine's largest batch are run in blocks; fewer than its smallest are filled with zeros.

        Raises:
            InputError: other names, dtypes or shapes than the engine has.
            EngineError: CUDA or TensorRT fails.
        """
        names, count = self._checked(outputs, feeds)
        low, high = self.batch_range
        blocks: List[List[Array]] = []
        with self._lane() as lane:
            for start in range(0, count, high):
                block = {name: array[start : start + high] for name, array in feeds.items()}
                size = min(high, count - start)
                views = lane.run(block, max(size, low))
                blocks.append([views[name][:size].copy() for name in names])
        return blocks[0] if len(blocks) == 1 else [np.concatenate(parts) for parts in zip(*blocks)]

    @contextlib.contextmanager
    def lend(self, feeds: Mapping[str, Array]) -> Iterator[Dict[str, Array]]:
        """The outputs for at most one largest batch, without the copy: views that are valid inside the ``with`` block.

        Raises:
            InputError, EngineError: as ``run``.
        """
        _, count = self._checked(None, feeds)
        low, high = self.batch_range
        if count > high:
            raise InputError(f"{count} samples are lent an output; the engine's largest batch is {high}")
        with self._lane() as lane:
            views = lane.run(feeds, max(count, low))
            yield {name: view[:count] for name, view in views.items()}

    def close(self) -> None:
        """Gives all buffers and streams back; no call may be running."""
        with self._free:
            for lane in self._lanes:
                lane.close()
            self._made -= len(self._lanes)
            self._lanes.clear()

    def _checked(self, outputs: Optional[Sequence[str]], feeds: Mapping[str, Array]) -> Tuple[Sequence[str], int]:
        """The names of the outputs that are asked for, and the number of samples."""
        names = list(self._output_dtypes) if outputs is None else outputs
        if feeds.keys() != self.inputs.keys() or not set(names) <= self._output_dtypes.keys():
            raise InputError(
                f"inputs {sorted(feeds)} and outputs {outputs} were named; the engine has {_listed(self.inputs)} and "
                f"{_listed(self._output_dtypes)}"
            )
        count = 0
        for name, end in self.inputs.items():
            array = feeds[name]
            count = count or len(array)
            if array.dtype != end.dtype or array.shape[1:] != end.shape or not len(array) or len(array) != count:
                raise InputError(
                    f"the input {name!r} is {array.dtype}{list(array.shape)}; must be {end.describe()}, N at least 1 "
                    "and that of the others"
                )
        return names, count

    @contextlib.contextmanager
    def _lane(self) -> Iterator[Lane]:
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

    def _new_lane(self) -> Lane:
        context = (
            self._engine.create_execution_context(self._config)
            if self._config is not None
            else self._engine.create_execution_context()
        )
        if context is None:
            raise EngineError("TensorRT creates no execution context; most likely the GPU's memory is full")
        return Lane(self, context, self._output_dtypes)

    def keep_runtime_cache(self) -> None:
        """Writes what TensorRT-RTX compiled to its file, whole or not at all; a folder that refuses costs only time."""
        if self._cache_file is None or self._config is None:
            return
        try:
            self._cache_file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._cache_file, bytes(self._config.get_runtime_cache().serialize()), MODE)
        except OSError as e:
            self.notes.append(f"the runtime cache cannot be kept ({e.strerror})")


def _ends(trt: Foreign, engine: Foreign) -> Tuple[Dict[str, End], Dict[str, DType], Tuple[int, int]]:
    """The inputs, the dtypes of the outputs, and the smallest and largest batch."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    read = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    dtypes = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
    outputs = {name: dtypes[name] for name in names if name not in read}
    inputs: Dict[str, End] = {}
    ranges = set()
    for name in read:
        low, _, high = (tuple(int(n) for n in shape) for shape in engine.get_tensor_profile_shape(name, 0))
        inputs[name] = End(name, high[1:], dtypes[name])
        ranges.add((low[0], high[0]))
    if not outputs or len(ranges) != 1:
        raise EngineError(
            f"the engine has the inputs {read} for batches {sorted(ranges)} and the outputs {list(outputs)}; must have "
            "some of each, for one range of batches"
        )
    return inputs, outputs, ranges.pop()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _runtime_config(engine: Foreign, file: Optional[Path]) -> Foreign:
    """TensorRT-RTX: a configuration with the cache of compiled kernels; ``None`` where there is no such thing."""
    if file is None or not hasattr(engine, "create_runtime_config"):
        return None
    config = engine.create_runtime_config()
    cache = config.create_runtime_cache()
    with contextlib.suppress(OSError):  # the first run on this machine
        cache.deserialize(file.read_bytes())
    config.set_runtime_cache(cache)
    return config
