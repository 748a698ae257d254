"""What a classifier says: logits, and what follows from them when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Tuple

import numpy as np

from ..errors import InputError, PackageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Predictions", "check_finite"]


class Predictions:
    """What a model says about N samples; everything but the logits is computed when it is asked for.

    ``logits``: float32[N, classes], owned by the caller: no later call writes to it.
    """

    __slots__ = ("_names", "logits")

    def __init__(self, logits: NDArray[np.float32], names: Tuple[str, ...]) -> None:
        self.logits = logits
        self._names = names

    def __len__(self) -> int:
        return len(self.logits)

    def __repr__(self) -> str:
        shown = [self._names[int(row.argmax())] if np.isfinite(row).all() else "no answer" for row in self.logits[:8]]
        return f"Predictions({len(self)}: {', '.join(shown)}{', …' if len(self) > 8 else ''})"

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """The softmax of the logits: float32[N, classes], 0..1, each row sums to 1."""
        powers = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    @property
    def classes(self) -> NDArray[np.int64]:
        """The class of each input: int64[N], 0..classes - 1; the first one of equals.

        Raises:
            PackageError: a logit is NaN or infinite; the largest would be an answer to nothing.
        """
        check_finite(self.logits)
        classes: NDArray[np.int64] = self.logits.argmax(axis=1)
        return classes

    @property
    def labels(self) -> List[str]:
        """The class name of each input."""
        return [self._names[i] for i in self.classes]

    def top(self, k: int) -> List[List[Tuple[str, float]]]:
        """Per input the ``k`` most probable classes (all, if there are fewer), best first, as (label, probability).

        Raises:
            InputError: ``k`` is under 1. PackageError: as ``classes``.
        """
        if k < 1:
            raise InputError(f"top is {k}; must be 1 or more")
        check_finite(self.logits)
        best = np.argsort(-self.logits, axis=1, kind="stable")[:, :k]
        probabilities = self.probabilities
        pairs = ((row, probabilities[n]) for n, row in enumerate(best))
        return [[(self._names[i], float(p[i])) for i in row] for row, p in pairs]

    def to_dict(self) -> Dict[str, object]:
        """Classes, labels and probabilities, JSON-ready; errors as ``classes``."""
        return {
            "classes": self.classes.tolist(),
            "labels": self.labels,
            "probabilities": self.probabilities.tolist(),
        }


def check_finite(logits: NDArray[np.float32]) -> None:
    """Refuses logits [N, classes] that are no numbers: the largest of NaN and others is NaN's class, without a word.

    Raises:
        PackageError: one is NaN or infinite.
    """
    if not np.isfinite(logits).all():
        row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
        raise PackageError(
            f"the model gives NaN or infinite logits for input {row}; run its self-test, or another onnxruntime"
        )
