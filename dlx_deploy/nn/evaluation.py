"""Logits, accuracy and paired counts of ONNX classifiers; no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.session import open_session

__all__ = ["batches", "paired_counts", "run_onnx", "top1"]


def run_onnx(
    model: Path | bytes, images: NDArray[np.uint8], exact_qdq: bool, batch: int = 64, threads: int = 0
) -> NDArray[np.float32]:
    """float32[N, K]: the logits of ``images`` (uint8[N, H, W, C], NHWC, 0..255), ``batch`` at a time.

    ``exact_qdq`` computes Q/DQ pairs in floating point as they are written, instead of with this host's INT8 kernels.
    A model with a fixed batch gets its own batch size, the last one filled up with copies of the last image.

    Raises:
        ConfigError: the images do not have the model's type or size, or there are none.
    """
    session = open_session(model.read_bytes() if isinstance(model, Path) else model, exact_qdq, threads)
    entry = session.get_inputs()[0]
    _refuse_misfit(images, entry.shape)
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) else 0
    logits = [session.run(None, {entry.name: part})[0] for part in batches(images, fixed or batch, bool(fixed))]
    return np.concatenate(logits)[: len(images)].astype(np.float32, copy=False)


def top1(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The share of images (0..1) whose largest logit (float32[N, K]) is that of the label (int64[N])."""
    return float(_right(logits, labels).mean())


def paired_counts(
    teacher: NDArray[np.float32], student: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[int, int, int]:
    """``(b, c, n)``: images that only the teacher gets right, that only the student gets right, and all images."""
    a, b = _right(teacher, labels), _right(student, labels)
    return int((a & ~b).sum()), int((b & ~a).sum()), len(labels)


def batches(images: NDArray[np.uint8], size: int, fill: bool) -> Iterator[NDArray[np.uint8]]:
    """``images``, ``size`` at a time; with ``fill`` the last batch is filled up with copies of the last image."""
    for start in range(0, len(images), size):
        part = images[start : start + size]
        if fill and len(part) < size:
            part = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        yield np.ascontiguousarray(part)


def _right(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ConfigError(
            f"logits are {list(logits.shape)} and labels {list(labels.shape)}; rule: [N, classes] and [N], N at least 1"
        )
    return np.asarray(logits.argmax(axis=1) == labels, dtype=np.bool_)


def _refuse_misfit(images: NDArray[np.uint8], shape: list[int | str | None]) -> None:
    fits = images.ndim == len(shape) and all(
        not isinstance(want, int) or want == seen for want, seen in zip(shape[1:], images.shape[1:], strict=False)
    )
    if images.dtype != np.uint8 or not fits or not len(images):
        raise ConfigError(
            f"the images are {images.dtype}{list(images.shape)}; "
            f"rule: uint8[N, {', '.join(str(d) for d in shape[1:])}] with at least one image"
        )
