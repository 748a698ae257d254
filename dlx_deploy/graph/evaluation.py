"""Logits, accuracy and paired counts of ONNX classifiers; no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.kernels import host_saturates
from dlx_deploy.runtime.backends.session import open_session, session_errors

__all__ = ["batches", "fitted", "paired_counts", "run_onnx", "top1"]


def run_onnx(
    model: Path | bytes,
    inputs: NDArray[Any],
    exact_qdq: bool,
    batch: int = 64,
    threads: int = 0,
    pad_id: int | None = None,
) -> NDArray[np.float32]:
    """float32[N, K]: the logits of ``inputs``, ``batch`` at a time.

    ``inputs``: images uint8[N, H, W, C], NHWC, 0..255, or tokens int32[N, L], which ``pad_id`` pads.

    ``exact_qdq`` computes Q/DQ pairs in floating point as they are written, instead of with this host's INT8 kernels.
    So it does where these saturate (``graph.kernels``): what comes out is the target's answer, not this machine's.
    A model with a fixed batch gets its own batch size, the last one filled up with copies of the last row.

    Raises:
        ConfigError: the inputs do not have the model's type or size, or there are none.
        StageFailed: ONNX Runtime cannot run the model on so many rows.
    """
    source = model.read_bytes() if isinstance(model, Path) else model
    session = open_session(source, exact_qdq or host_saturates(source), threads)
    entry = session.get_inputs()[0]
    _refuse_misfit(inputs, entry.shape, pad_id)
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) else 0
    parts = batches(inputs, fixed or batch, bool(fixed))
    logits = [_answered(session, entry.name, fitted(part, entry.shape, pad_id)) for part in parts]
    return np.concatenate(logits)[: len(inputs)].astype(np.float32, copy=False)


def _answered(session: Any, name: str, rows: NDArray[Any]) -> NDArray[Any]:
    try:
        logits: NDArray[Any] = session.run(None, {name: rows})[0]
    except session_errors() as e:
        raise StageFailed(f"ONNX Runtime cannot run the model on {name} {list(rows.shape)}: {e}") from e
    if logits.ndim != 2 or len(logits) != len(rows):
        raise StageFailed(
            f"the model gives {logits.dtype}{list(logits.shape)} for {len(rows)} {name}; rule: a row of logits for each"
        )
    return logits


def top1(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The share of images (0..1) whose largest logit (float32[N, K]) is that of the label (int64[N])."""
    return float(_right(logits, labels).mean())


def paired_counts(
    teacher: NDArray[np.float32], student: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[int, int, int]:
    """``(b, c, n)``: images that only the teacher gets right, that only the student gets right, and all images."""
    a, b = _right(teacher, labels), _right(student, labels)
    return int((a & ~b).sum()), int((b & ~a).sum()), len(labels)


def fitted(rows: NDArray[Any], shape: Sequence[Any], pad_id: int | None) -> NDArray[Any]:
    """``rows`` as a model with an input of ``shape`` takes them: images as they are, tokens of the right length.

    That is the model's, or where it is dynamic that of the longest row.
    """
    if pad_id is None:
        return rows
    longest = max(int((rows != pad_id).sum(axis=1).max()), 1)
    length = shape[1] if isinstance(shape[1], int) and shape[1] > 0 else longest
    found = np.full((len(rows), length), pad_id, rows.dtype)
    kept = min(length, rows.shape[1])
    found[:, :kept] = rows[:, :kept]
    return found


def batches(inputs: NDArray[Any], size: int, fill: bool) -> Iterator[NDArray[Any]]:
    """``inputs``, ``size`` at a time; with ``fill`` the last batch is filled up with copies of the last row."""
    for start in range(0, len(inputs), size):
        part = inputs[start : start + size]
        if fill and len(part) < size:
            part = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        yield np.ascontiguousarray(part)


def _right(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ConfigError(
            f"logits are {list(logits.shape)} and labels {list(labels.shape)}; rule: [N, classes] and [N], N at least 1"
        )
    return np.asarray(logits.argmax(axis=1) == labels, dtype=np.bool_)


def _refuse_misfit(inputs: NDArray[Any], shape: Sequence[Any], pad_id: int | None) -> None:
    kind = np.uint8 if pad_id is None else np.int32
    fits = inputs.ndim == len(shape) and all(
        not isinstance(want, int) or want == seen or (pad_id is not None and want > seen)
        for want, seen in zip(shape[1:], inputs.shape[1:], strict=False)
    )
    if inputs.dtype != kind or not fits or not len(inputs):
        raise ConfigError(
            f"the inputs are {inputs.dtype}{list(inputs.shape)}; "
            f"rule: {np.dtype(kind)}[N, {', '.join(str(d) for d in shape[1:])}] with at least one row"
        )
