"""What ONNX models answer; no torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from onnx import ModelProto

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.execution.kernels import host_saturates
from dlx_deploy.graph.execution.memory import BATCH_BYTES, peak_row_bytes, rows_within
from dlx_deploy.graph.model import input_dims, load
from dlx_deploy.graph.samples import Arrays, Samples, Shape
from dlx_deploy.runtime.backends.session import InferenceSession, open_session, session_errors
from dlx_deploy.runtime.machine import available_cores
from dlx_deploy.runtime.untyped import Array

__all__ = ["BATCH", "batches_at_once", "input_shapes", "run_in_batches", "run_onnx"]

BATCH = 64
"""Rows that are run at a time, where they are small."""
ALL_BYTES = 3 * BATCH_BYTES
"""Of the activations of all batches that are run at once."""


def run_onnx(
    model: Path | bytes,
    samples: Samples,
    exact_qdq: bool,
    batch: int = BATCH,
    threads: int = 0,
    shrink: bool = True,
) -> Arrays:
    """Output name → float32[N, ...] (or another type, if it is no float): the answers to all ``samples``.

    As ``run_in_batches``, whose batches it joins.

    Raises:
        ConfigError, StageFailed: as ``run_in_batches``.
    """
    parts = list(run_in_batches(model, samples, exact_qdq, batch, threads, shrink))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def run_in_batches(
    model: Path | bytes,
    samples: Samples,
    exact_qdq: bool,
    batch: int = BATCH,
    threads: int = 0,
    shrink: bool = True,
    *,
    fused: bool = False,
) -> Iterator[Arrays]:
    """The answers to ``samples`` in their order, ``batch`` at a time, or with ``shrink`` fewer, where the graph's
    activations are large: output name → float32[n, ...], or another type, if it is no float.

    ``exact_qdq`` computes Q/DQ pairs in floating point as they are written, instead of with this host's INT8 kernels.
    So it does where these saturate (``execution.kernels``): what comes out is the target's answer, not this machine's.
    A model with a fixed batch gets its own batch size, the last one filled up with copies of the last sample.
    ``threads`` (0: a core each) run batches side by side. ``fused``: see ``open_session``.

    Raises:
        ConfigError: the samples do not have the model's inputs, types or sizes, or there are none.
        StageFailed: ONNX Runtime cannot run the model on so many rows.
    """
    source = model.read_bytes() if isinstance(model, Path) else model
    graph = load(source)
    fixed = _fixed_batch(graph, samples)
    size, side_by_side = _division(graph, samples, batch, threads, shrink)
    # One thread for each batch, not all for each node: where other work has the cores too, as on a shared machine,
    # threads that wait for each other after every node of a small network take 17 times as long. And up to ONNX Runtime
    # 1.23 how many there are shows in float32's last bit.
    exact, of_each = exact_qdq or host_saturates(source), _threads_of_each(threads, side_by_side)
    session = open_session(source, exact, of_each, fused=fused)
    shapes = input_shapes(session)
    types = {entry.name: _dtype(entry.type) for entry in session.get_inputs()}
    samples.refuse_misfit(types, shapes)
    names = [output.name for output in session.get_outputs()]
    left = len(samples)

    def answers(part: Samples) -> tuple[int, Arrays]:
        return len(part), _answered(session, names, part.fitted(shapes))

    for count, outputs in _in_order(answers, samples.batches(size, bool(fixed)), side_by_side):
        yield {name: _plain(values[:left]) for name, values in outputs.items()}
        left -= count


def batches_at_once(model: bytes, samples: Samples, batch: int = BATCH, threads: int = 0) -> int:
    """How many batches ``run_in_batches`` runs at once. Given to it as ``threads``, no session has more than one
    thread, also where that is a single batch: the answers then have the same bits whatever ``threads`` is here.
    """
    return _division(load(model), samples, batch, threads, shrink=True)[1]


def _division(graph: ModelProto, samples: Samples, batch: int, threads: int, shrink: bool) -> tuple[int, int]:
    """The rows of a batch, and how many batches are run at once."""
    row_bytes = peak_row_bytes(graph) if len(samples) > 1 else 0
    size = _fixed_batch(graph, samples) or (rows_within(row_bytes, batch) if shrink else batch)
    return size, _side_by_side(threads or available_cores(), -(-len(samples) // size), size * row_bytes)


def _fixed_batch(graph: ModelProto, samples: Samples) -> int | None:
    """The model's batch size, if it has one; graphs of old exporters list their weights among the inputs, too."""
    return next((dims[0] for name, dims in input_dims(graph).items() if name in samples.arrays and dims), None)


def _side_by_side(threads: int, batches: int, batch_bytes: int) -> int:
    """How many batches are run at once: no more than there are, and than the memory holds."""
    return max(1, min(threads, batches, ALL_BYTES // max(batch_bytes, 1)))


def _threads_of_each(threads: int, side_by_side: int) -> int:
    """The intra-op threads of a session that runs so many batches at once; 0 lets ONNX Runtime choose."""
    return threads if side_by_side == 1 else 1


def _in_order(
    answers: Callable[[Samples], tuple[int, Arrays]], parts: Iterable[Samples], side_by_side: int
) -> Iterator[tuple[int, Arrays]]:
    """What ``answers`` gives for each of ``parts``, so many at once; no more than these wait to be taken."""
    if side_by_side == 1:
        yield from map(answers, parts)
        return
    with ThreadPoolExecutor(side_by_side) as pool:  # ONNX Runtime releases Python's lock while it runs
        running: deque[Future[tuple[int, Arrays]]] = deque()
        try:
            for part in parts:
                if len(running) == side_by_side:
                    yield running.popleft().result()
                running.append(pool.submit(answers, part))
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _plain(values: Array) -> Array:
    return values.astype(np.float32, copy=False) if values.dtype.kind == "f" else values


def input_shapes(session: InferenceSession) -> dict[str, Shape]:
    """Input name → its dimensions in ``session``."""
    return {entry.name: entry.shape for entry in session.get_inputs()}


def _answered(session: InferenceSession, names: list[str], rows: Samples) -> Arrays:
    try:
        outputs = dict(zip(names, session.run(names, rows.feed()), strict=True))
    except session_errors() as e:
        raise StageFailed(f"ONNX Runtime cannot run the model on {rows.describe()}: {e}") from e
    for name, values in outputs.items():
        if values.ndim < 2 or len(values) != len(rows):
            raise StageFailed(
                f"the model gives {name} {values.dtype}{list(values.shape)} for {len(rows)} rows; rule: a row of "
                f"{name} for each"
            )
    return outputs


def _dtype(kind: str) -> str:
    """numpy's name of an ONNX Runtime type such as ``tensor(float)``."""
    name = kind[len("tensor(") : -1]
    return {"float": "float32", "double": "float64"}.get(name, name)
