"""What ONNX models answer; no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.execution.kernels import host_saturates
from dlx_deploy.graph.samples import Arrays, Samples, Shape
from dlx_deploy.runtime.backends.session import InferenceSession, open_session, session_errors

__all__ = ["input_shapes", "run_onnx"]


def run_onnx(model: Path | bytes, samples: Samples, exact_qdq: bool, batch: int = 64, threads: int = 0) -> Arrays:
    """Output name → float32[N, ...] (or another type, if it is no float): the answers to ``samples``, ``batch`` at a
    time.

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
    parts = [_answered(session, names, part.fitted(shapes)) for part in samples.batches(fixed or batch, bool(fixed))]
    whole = {name: np.concatenate([part[name] for part in parts])[: len(samples)] for name in names}
    return {n: v.astype(np.float32, copy=False) if v.dtype.kind == "f" else v for n, v in whole.items()}


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
