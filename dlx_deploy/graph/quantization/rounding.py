"""How weights become integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rounding", "given_back", "nearest"]


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


def given_back(rounded: Mapping[str, NDArray[np.int8]]) -> Rounding:
    """The integers in ``rounded``, by layer, for the scales that they were found with; others are the nearest."""

    def chosen(layer: str, weight: NDArray[np.float32], scale: NDArray[np.float32], levels: int) -> NDArray[np.int8]:
        return rounded[layer] if layer in rounded else nearest(layer, weight, scale, levels)

    return chosen
