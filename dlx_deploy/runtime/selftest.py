"""Whether this machine computes what the builder computed: golden inputs through the model, compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import SelfTestFailed
from .predictor import Predictor

__all__ = ["SelfTestResult", "self_test"]


@dataclass(frozen=True)
class SelfTestResult:
    """A self-test that passed. ``max_abs_diff`` is the largest difference of a logit from its golden value."""

    images: int
    max_abs_diff: float
    atol: float
    rtol: float


def self_test(predictor: Predictor) -> SelfTestResult:
    """How close the golden images' logits come to the golden ones; every top-1 class must be the same.

    A logit agrees if it differs by at most ``atol + rtol * |golden|``.

    Raises:
        SelfTestFailed: names the first image that differs, what was expected and what came out.
    """
    package = predictor.package
    _check_tokens(predictor)
    golden = package.golden_logits
    logits = predictor.predict(package.golden_inputs).logits
    difference = np.abs(logits - golden)
    close = (difference <= package.atol + package.rtol * np.abs(golden)).all(axis=1)  # NaN is not close
    same = logits.argmax(axis=1) == golden.argmax(axis=1)
    wrong = np.flatnonzero(~(close & same))
    if len(wrong):
        i = int(wrong[0])
        k = int(np.nan_to_num(difference[i], nan=np.inf).argmax())
        labels = package.labels
        raise SelfTestFailed(
            f"golden {package.input.noun[:-1]} {i} differs ({len(wrong)} of {len(golden)} do): logit {k} "
            f"({labels[k]!r}) is {logits[i, k]:.6g}, expected {golden[i, k]:.6g} within atol {package.atol:g} + rtol "
            f"{package.rtol:g}; top-1 is {labels[int(logits[i].argmax())]!r}, expected "
            f"{labels[int(golden[i].argmax())]!r}. "
            "Try another onnxruntime version; do not deploy on this machine until it passes"
        )
    return SelfTestResult(len(golden), float(difference.max()), package.atol, package.rtol)


def _check_tokens(predictor: Predictor) -> None:
    """That the golden texts become the golden tokens here too."""
    package = predictor.package
    if not package.golden_texts:
        return
    tokens, golden = predictor.decode(list(package.golden_texts)), predictor.decode(package.golden_inputs)
    width = min(tokens.shape[1], golden.shape[1])
    pad = package.input.pad_id
    same = (tokens[:, :width] == golden[:, :width]).all(axis=1)
    same &= (tokens[:, width:] == pad).all(axis=1) & (golden[:, width:] == pad).all(axis=1)
    if not same.all():
        i = int(np.flatnonzero(~same)[0])
        raise SelfTestFailed(
            f"golden text {i} ({package.golden_texts[i][:60]!r}) gives other tokens than where the package was built "
            f"({int((~same).sum())} of {len(same)} do): try another version of the tokenizers library"
        )
