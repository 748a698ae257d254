"""Whether an adopted graph answers as the one that it was made from, both in ONNX Runtime, on real inputs; no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.runtime.backends.session import InferenceSession, open_session, session_errors
from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.untyped import Array

__all__ = ["Original", "OriginalParity", "check_original", "open_original"]

BATCH = 32
_ROUNDING = 1e-4
"""Of probabilities."""

Read = Callable[[Samples], Arrays]
"""Stored samples as the original reads them, by the names of its inputs, computed the plain way."""


@dataclass(frozen=True)
class Original:
    """The model as it came. ``batch``: the only size that it takes, or ``None``.

    ``softmax``: whether the adopted one leaves its last softmax out. ``order``: as in ``Adoption``. ``ask``: what
    answers in place of ``model``, for what came as something else than ONNX: float32 inputs → the answer.
    """

    model: bytes
    images: str
    answer: str
    batch: int | None
    softmax: bool
    order: Sequence[int]
    ask: Callable[[NDArray[np.float32]], Array] | None = None


@dataclass(frozen=True)
class OriginalParity:
    """How far the adopted graph is off; ``relative``: to the largest value. ``probabilities``: all lie in 0..1."""

    max_abs_diff: float
    relative: float
    probabilities: bool
    vacuous: bool


def check_original(
    original: Original, adopted: bytes, samples: Samples, read: Read, tolerance: float
) -> OriginalParity:
    """How far ``adopted`` is from ``original`` on ``samples``.

    Raises:
        StageFailed: further than ``tolerance`` of the largest value, or an answer is not finite.
    """
    (answers,) = run_onnx(adopted, samples, exact_qdq=False, batch=BATCH).values()
    probabilities = bool(answers.ndim == 2 and ((answers >= 0) & (answers <= 1 + _ROUNDING)).all())
    answers = _softmax(answers) if original.softmax else answers
    expected = _asked(original, samples, read).reshape(answers.shape)
    if not (np.isfinite(answers).all() and np.isfinite(expected).all()):
        raise StageFailed(
            "its answers are not finite (NaN or infinite); is its preprocessing that of [data]: mean, std and channels?"
        )
    apart, largest = float(np.abs(answers - expected).max()), float(np.abs(expected).max())
    relative = apart / largest if largest else apart
    if relative > tolerance:
        raise StageFailed(
            f"what was made of it answers otherwise on {len(samples)} samples: by {relative:.2e} of the largest value "
            f"({apart:.2e}); rule: at most {tolerance:.2e} (export.parity_tolerance); export it at a newer opset"
        )
    return OriginalParity(apart, relative, probabilities, len(samples) > 1 and not np.ptp(expected, axis=0).any())


def open_original(original: Original) -> InferenceSession:
    """A session of the model as it came.

    Raises:
        ConfigError: ONNX Runtime does not load it.
    """
    try:
        return open_session(original.model, exact_qdq=False)
    except PackageError as e:
        raise ConfigError(f"it cannot be run as it came: {e}; export it again") from e


def _asked(original: Original, samples: Samples, read: Read) -> Array:
    session, parts = None if original.ask else open_original(original), []
    for part in samples.batches(original.batch or BATCH, fill=original.batch is not None):
        given = read(part)
        try:
            if original.ask is not None:
                parts.append(original.ask(given[original.images]))
            elif session is not None:
                parts.append(session.run([original.answer], given)[0])
        except session_errors() as e:
            raise StageFailed(f"ONNX Runtime cannot run it as it came, on {part.describe()}: {e}") from e
    answers: Array = np.concatenate(parts)[: len(samples)]
    return answers[:, list(original.order)] if original.order else answers


def _softmax(logits: Array) -> Array:
    raised: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Array = raised / raised.sum(axis=1, keepdims=True)
    return probabilities
