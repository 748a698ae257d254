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

__all__ = ["jensen_shannon", "kolmogorov_smirnov"]


def kolmogorov_smirnov(shares: Shares, reference: Shares) -> Shares:
    """Of magnitudes: the largest difference of the two cumulative distributions, 0 to 1, at the edges of the bins.

    ``shares``: float64[..., bins], each sums to 1; ``reference``: float64[bins]. Gives float64[...]. Smirnov (1948).
    """
    far: Shares = np.abs(np.cumsum(shares - reference, axis=-1)).max(axis=-1)
    return far


def jensen_shannon(shares: Shares, reference: Shares) -> Shares:
    """Of classes: the root of the Jensen-Shannon divergence in bits, 0 to 1. Shapes as in ``kolmogorov_smirnov``.

    Lin (1991); its root is a metric by Endres and Schindelin (2003). The population stability index is a divergence
    of the same family, which is infinite where a class is missing.
    """
    middle = (shares + reference) / 2
    divergence = (_against(shares, middle) + _against(reference, middle)) / 2
    root: Shares = np.sqrt(np.clip(divergence, 0, 1))
    return root


def _against(shares: Shares, middle: Shares) -> Shares:
    """The Kullback-Leibler divergence from ``middle``, in bits; where ``middle`` is 0, so are the shares."""
    ratio = np.divide(shares, middle, out=np.ones(np.broadcast(shares, middle).shape), where=shares > 0)
    bits: Shares = (shares * np.log2(ratio)).sum(axis=-1)
    return bits
