"""Whether this machine computes what the builder computed: golden inputs through the model, compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, List

import numpy as np

from ..errors import SelfTestFailed
from ..package.contents import Package
from ..predictor import Predictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SelfTestResult", "self_test"]

DEPENDS = "Together all agree: the model's answers depend on the batch; build the package again, and do not deploy it"


@dataclass(frozen=True)
class SelfTestResult:
    """A self-test that passed. ``max_abs_diff`` is the largest difference of a logit from its golden value."""

    images: int
    max_abs_diff: float
    atol: float
    rtol: float


def self_test(predictor: Predictor) -> SelfTestResult:
    """How close the golden images' logits come to the golden ones; every top-1 class must be the same.

    All are asked together, then each alone, then an odd number of them backwards: an answer must not depend on its
    neighbours. A logit agrees if it differs by at most ``atol + rtol * |golden|``; where ONNX Runtime's CPU runs the
    graph in exact arithmetic, ``exact_atol`` takes the place of ``atol``.

    Raises:
        SelfTestFailed: names the first image that differs, what was expected and what came out.
    """
    package, atol = predictor.package, _atol(predictor)
    _check_tokens(predictor)
    inputs, count = package.golden_inputs, len(package.golden_inputs)
    largest = _furthest(package, atol, predictor.predict(inputs).logits, list(range(count)))
    singles: List[Any] = list(package.golden_texts) or [inputs[i : i + 1] for i in range(count)]
    alone = np.concatenate([predictor.predict(single).logits for single in singles])
    largest = max(largest, _furthest(package, atol, alone, list(range(count)), " alone"))
    backwards = list(range(count))[::-1][: count - 1 + count % 2]
    some = predictor.predict(inputs[backwards]).logits
    largest = max(largest, _furthest(package, atol, some, backwards, f" in a batch of {len(backwards)}"))
    return SelfTestResult(count, largest, atol, package.rtol)


def _atol(predictor: Predictor) -> float:
    """The absolute tolerance for what runs here."""
    package = predictor.package
    exact = package.exact_qdq and predictor.backend.record.exact
    return package.exact_atol if exact and package.exact_atol is not None else package.atol


def _furthest(package: Package, atol: float, logits: NDArray[np.float32], rows: List[int], how: str = "") -> float:
    """The largest difference of ``logits``, float32[n, K], from the golden ones of ``rows``; ``how`` they were asked.

    Raises:
        SelfTestFailed: one differs too much, or has another top-1 class.
    """
    golden = package.golden_logits[rows]
    difference = np.abs(logits - golden)
    close = (difference <= atol + package.rtol * np.abs(golden)).all(axis=1)  # NaN is not close
    wrong = np.flatnonzero(~(close & (logits.argmax(axis=1) == golden.argmax(axis=1))))
    if len(wrong):
        i = int(wrong[0])
        k = int(np.nan_to_num(difference[i], nan=np.inf).argmax())
        labels = package.labels
        raise SelfTestFailed(
            f"golden {package.input.noun[:-1]} {rows[i]} differs{how} ({len(wrong)} of {len(golden)} do): logit {k} "
            f"({labels[k]!r}) is {logits[i, k]:.6g}, expected {golden[i, k]:.6g} within atol {atol:g} + rtol "
            f"{package.rtol:g}; top-1 is {labels[int(logits[i].argmax())]!r}, expected "
            f"{labels[int(golden[i].argmax())]!r}. "
            + (DEPENDS if how else "Try another onnxruntime version; do not deploy on this machine until it passes")
        )
    return float(difference.max())


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
