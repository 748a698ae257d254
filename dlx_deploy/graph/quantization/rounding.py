"""How weights become integers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rounding", "nearest"]


class Rounding(Protocol):
    """Chooses the integers of a layer's weights."""

    def __call__(
        self, layer: str, weight: NDArray[np.float32], scale: NDArray[np.float32], levels: int
    ) -> NDArray[np.int8]:
        """int8 of ``weight``'s shape, -levels..levels: about ``weight / scale``.

        ``layer``: the name of the node that reads the weights first. ``scale``: of as many dimensions as ``weight``, of
        size 1 but for that of the output channels, all above 0.
        """
        ...


def nearest(layer: str, weight: NDArray[np.float32], scale: NDArray[np.float32], levels: int) -> NDArray[np.int8]:
    """The nearest integers, of two as near the even one: what every quantizer does that learns nothing."""
    steps: NDArray[np.int8] = np.rint(weight / scale).clip(-levels, levels).astype(np.int8)
    return steps
