"""Latency of several ONNX models on this machine, timed in turn so that drift hits all of them alike; no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.runtime.bench import Latency, measure
from dlx_deploy.runtime.session import open_session

__all__ = ["interleaved_latency"]

_WARMUP = 30


def interleaved_latency(
    models: Mapping[str, Path], image: NDArray[np.uint8], rounds: int, threads: int
) -> Mapping[str, Latency]:
    """Model name → latency at batch 1 over ``rounds`` timings, with native kernels.

    ``image``: uint8[1, H, W, C], NHWC, 0..255. A model with a fixed batch is given that many copies of it.
    ``threads``: intra-op threads of each session.
    """
    return measure({name: _runner(path, image, threads) for name, path in models.items()}, rounds, _WARMUP)


def _runner(path: Path, image: NDArray[np.uint8], threads: int) -> Callable[[], Any]:
    session = open_session(path.read_bytes(), exact_qdq=False, threads=threads)
    entry = session.get_inputs()[0]
    copies = entry.shape[0] if isinstance(entry.shape[0], int) else 1
    feed = {entry.name: np.ascontiguousarray(np.repeat(image, copies, axis=0))}
    return lambda: session.run(None, feed)
