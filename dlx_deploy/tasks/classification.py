"""What both classification tasks share: right or wrong per sample, and which samples are golden. numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.errors import ConfigError

__all__ = ["clear_rows", "paired_counts", "top1"]


def top1(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The share of samples (0..1) whose largest logit (float32[N, K]) is that of the label (int64[N])."""
    return float(_right(logits, labels).mean())


def paired_counts(
    teacher: NDArray[np.float32], student: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[int, int, int]:
    """``(b, c, n)``: samples that only the teacher gets right, that only the student gets right, and all."""
    a, b = _right(teacher, labels), _right(student, labels)
    return int((a & ~b).sum()), int((b & ~a).sum()), len(labels)


def _right(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ConfigError(
            f"logits are {list(logits.shape)} and labels {list(labels.shape)}; rule: [N, classes] and [N], N at least 1"
        )
    return np.asarray(logits.argmax(axis=1) == labels, dtype=np.bool_)


def clear_rows(logits: np.ndarray, tolerance: float, count: int) -> np.ndarray:
    """Rows of ``logits``, float[N, K], whose best class leads by more than twice ``tolerance``: int64[min(count, N)].

    Each logit may differ by ``tolerance`` on another runtime, and the self-test asks for the same best class: on a near
    tie it would reject what is right. Clear rows come in their order; too few are filled up with the clearest others.
    """
    if logits.shape[1] < 2:
        return np.arange(min(count, len(logits)))
    second, best = np.partition(logits, -2, axis=1)[:, -2:].T
    margin = best - second
    clear = margin > 2 * tolerance
    order = np.lexsort((np.where(clear, np.arange(len(logits)), -margin), ~clear))
    return np.sort(order[:count])
