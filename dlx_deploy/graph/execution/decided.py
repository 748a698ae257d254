"""What a network decides, whatever its task: the largest value along axis 1, in each place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.samples import Samples
from dlx_deploy.runtime.untyped import Array

__all__ = ["commonest_share"]


def commonest_share(model: Path | bytes, samples: Samples) -> float | None:
    """The share (0..1) of the decisions on ``samples`` that are the same, of several outputs the lowest; ``None`` where
    no output decides anything. In a map each place is a decision.

    Raises:
        StageFailed: ONNX Runtime cannot run the model.
    """
    answers = run_onnx(model, samples, exact_qdq=False)
    shares = [_share(decided) for decided in map(_decided, answers.values()) if decided is not None]
    return min(shares, default=None)


def _decided(values: Array) -> NDArray[np.int64] | None:
    """int64[N, ...]: which value is the largest; integers are decisions already."""
    if values.dtype.kind in "iu":
        return np.asarray(values, np.int64)
    if values.dtype.kind != "f" or values.ndim < 2 or values.shape[1] < 2:
        return None
    return np.asarray(values.argmax(axis=1), np.int64)


def _share(decided: NDArray[np.int64]) -> float:
    _, counts = np.unique(decided, return_counts=True)
    return float(counts.max() / decided.size) if decided.size else 1.0
