"""What ONNX models answer; no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.execution.kernels import host_saturates
from dlx_deploy.graph.samples import Arrays, Samples, Shape
from dlx_deploy.runtime.backends.session import InferenceSession, open_session, session_errors
from dlx_deploy.runtime.untyped import Array

__all__ = ["BATCH", "input_shapes", "run_in_batches", "run_onnx"]

BATCH = 64
"""Rows that are run at a time, where they are small."""


def run_onnx(model: Path | bytes, samples: Samples, exact_qdq: bool, batch: int = BATCH, threads: int = 0) -> Arrays:
    """Output name → float32[N, ...] (or another type, if it is no float): the answers to all ``samples``.

    As ``run_in_batches``, whose batches it joins.

    Raises:
        ConfigError, StageFailed: as ``run_in_batches``.
    """
    parts = list(run_in_batches(model, samples, exact_qdq, batch, threads))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def run_in_batches(
    model: Path | bytes, samples: Samples, exact_qdq: bool, batch: int = BATCH, threads: int = 0
) -> Iterator[Arrays]:
    """The answers to ``samples``, at most ``batch`` at a time: output name → float32[n, ...], or another type, if it is
    no float.

    ``exact_qdq`` computes Q/DQ pairs in floating point as they are written, instead of with this host's INT8 kernels.
    So it does where these saturate (``execution.kernels``): what comes out is the target's answer, not this machine's.
    A model with a fixed batch gets its own batch size, the last one filled up with copies of the last sample.

    Raises:
        ConfigError: the samples do not have the model's inputs, types or sizes, or there are none.
        StageFailed: ONNX Runtime cannot run the model on so many rows.
    """
    source = model.read_bytes() if isinstance(model, Path) else model
    session = open_session(source, exact_qdq or host_saturates(source), threads)
    shapes = input_shapes(session)
    types = {entry.name: _dtype(entry.type) for entry in session.get_inputs()}
    samples.refuse_misfit(types, shapes)
    first = next(iter(shapes.values()))[0]
    fixed = first if isinstance(first, int) else 0
    names = [output.name for output in session.get_outputs()]
    left = len(samples)
    for part in samples.batches(fixed or batch, bool(fixed)):
        outputs = _answered(session, names, part.fitted(shapes))
        yield {name: _plain(values[:left]) for name, values in outputs.items()}
        left -= len(part)


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
