"""Groups of samples (one patient, one scene, one author) as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dlx_deploy.nn.data.dataset import Labels

__all__ = ["numbered_groups"]


def numbered_groups(groups: Mapping[str, Sequence[str]]) -> dict[str, Labels]:
    """Split → int64[N], a number for the group of each sample; "": it is of none, and so one of its own. Nothing where
    no sample is of a group."""
    names = sorted({name for of in groups.values() for name in of} - {""})
    if not names:
        return {}
    number, alone = {name: i for i, name in enumerate(names)}, len(names)
    found: dict[str, Labels] = {}
    for split, of in groups.items():
        found[split] = np.array([number.get(name, alone + i) for i, name in enumerate(of)], np.int64)
        alone += len(of)
    return found
