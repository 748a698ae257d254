"""How far probabilities of classes are from how often they are right, and the temperature that brings them nearer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
    Labels = npt.NDArray[np.int64]

__all__ = ["Calibrated", "calibrated", "calibration_error", "fit_temperature", "log_loss"]

BINS = 15
"""Of equal width over 0..1, as in Guo et al. 2017."""
_ROWS = 4096
"""Samples whose logits are float64 at a time."""
_WIDEST = 1e3
"""A temperature outside of 1/1000 to 1000 is none: nothing on the validation split bounds it."""


@dataclass(frozen=True)
class Calibrated:
    """Of a test split, with logits as they are and divided by ``temperature``, which validation gave.

    ``ece``: expected calibration error, 0..1. ``nll``: mean negative log-likelihood, in nats.
    """

    temperature: float
    ece: float
    ece_calibrated: float
    nll: float
    nll_calibrated: float


def calibrated(validation: tuple[Logits, Labels], test: tuple[Logits, Labels]) -> Calibrated | None:
    """What the temperature of ``validation``, logits float32[N, K] and labels int64[N], makes of ``test``.

    ``None``: it has none.
    """
    temperature = fit_temperature(*validation)
    if temperature is None:
        return None
    ece, nll = ([of(*test, t) for t in (1.0, temperature)] for of in (calibration_error, log_loss))
    return Calibrated(temperature, *ece, *nll)


def fit_temperature(logits: Logits, labels: Labels) -> float | None:
    """What logits float32[N, K] are divided by where the likelihood of ``labels`` int64[N] is the largest.

    Temperature scaling of Guo et al. 2017 ("On Calibration of Modern Neural Networks"): the loss is convex in 1 / T,
    whose root of the slope is found by bisection. ``None``: it has none within reach, as where every answer is right.
    """
    import numpy as np

    def slope(inverse: float) -> float:
        total = 0.0
        for z, y in _blocks(logits, labels):
            p = np.exp(inverse * z)
            total += float(((p * z).sum(axis=1) / p.sum(axis=1) - z[np.arange(len(y)), y]).sum())
        return total

    low, high = 1 / _WIDEST, _WIDEST
    if not len(labels) or slope(low) >= 0 or slope(high) <= 0:
        return None
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(1 / (low * high) ** 0.5)


def calibration_error(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    """0..1: the mean over samples of how far the confidence of their bin is from the share that is right in it."""
    import numpy as np

    gaps = np.zeros(BINS)
    for z, y in _blocks(logits, labels):
        p = np.exp(z / temperature)
        confidence = 1 / p.sum(axis=1)  # the largest logit is 0
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        gaps += np.bincount(bins, confidence - (z.argmax(axis=1) == y), minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def log_loss(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    """The mean negative log-likelihood of ``labels``, in nats."""
    import numpy as np

    total = 0.0
    for z, y in _blocks(logits, labels):
        z = z / temperature
        total += float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]).sum())
    return total / len(labels)


def _blocks(logits: Logits, labels: Labels) -> Iterator[tuple[npt.NDArray[np.float64], Labels]]:
    """Logits whose largest is 0, float64[n, K], and labels, some samples at a time."""
    for i in range(0, len(labels), _ROWS):
        z = logits[i : i + _ROWS].astype("float64")
        yield z - z.max(axis=1, keepdims=True), labels[i : i + _ROWS]
