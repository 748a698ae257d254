"""How far counts in bins are from reference shares, for one set of samples or for many at once.

Both distances are metrics: what a window differs from the field's distribution, and what the reference differs from it,
add up to at most what window and reference differ. So bounds of the two are added, whatever the reference is like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Shares = NDArray[np.float64]

__all__ = ["energy", "kolmogorov_smirnov"]


def kolmogorov_smirnov(shares: Shares, reference: Shares) -> Shares:
    """Of magnitudes: the largest difference of the two cumulative distributions, 0 to 1, at the edges of the bins.

    ``shares``: float64[..., bins], each sums to 1; ``reference``: float64[bins]. Gives float64[...]. Smirnov (1948).
    """
    far: Shares = np.abs(np.cumsum(shares - reference, axis=-1)).max(axis=-1)
    return far


def energy(shares: Shares, reference: Shares) -> Shares:
    """Of classes: the energy distance where any two classes are one apart, 0 to 1. Shapes as in ``kolmogorov_smirnov``.

    Székely and Rizzo (2013); it is the root of half the sum of the squared differences of shares. Divergences (the
    population stability index, Jensen and Shannon's) are ruled by the rarest classes: on CIFAR-10 they saw a class that
    came three times as often in 4 % of windows of 1,024, this in 89 %.
    """
    far: Shares = np.sqrt(((shares - reference) ** 2).sum(axis=-1) / 2)
    return far
