"""Latency of several ONNX models on this machine, timed in turn so that drift hits all of them alike; no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.graph.evaluation import fitted
from dlx_deploy.runtime.backends.session import open_session
from dlx_deploy.runtime.commands.bench import Latency, measure

__all__ = ["interleaved_latency"]

_WARMUP = 30
_PACE = 300.0
"""Rounds a second at most: a few hundred timings of a small network would else be one moment of the machine's."""


def interleaved_latency(
    models: Mapping[str, Path], row: NDArray[Any], rounds: int, threads: int, pad_id: int | None = None
) -> Mapping[str, Latency]:
    """Model name → latency at batch 1 over ``rounds`` timings spread over time, with native kernels.

    ``row``: an image uint8[1, H, W, C], NHWC, 0..255, or tokens int32[1, L] that ``pad_id`` pads. A model with a fixed
    batch is given that many copies of it.
    ``threads``: intra-op threads of each session.
    """
    return measure({name: _runner(path, row, threads, pad_id) for name, path in models.items()}, rounds, _WARMUP, _PACE)


def _runner(path: Path, row: NDArray[Any], threads: int, pad_id: int | None) -> Callable[[], Any]:
    session = open_session(path.read_bytes(), exact_qdq=False, threads=threads)
    entry = session.get_inputs()[0]
    copies = entry.shape[0] if isinstance(entry.shape[0], int) else 1
    rows = np.repeat(fitted(row, entry.shape, pad_id), copies, axis=0)
    feed = {entry.name: np.ascontiguousarray(rows)}
    return lambda: session.run(None, feed)
