"""Groups of samples (one patient, one scene, one author): what they share with no other split, and as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.dataset import Labels
from dlx_deploy.nn.data.listing import warn_once

__all__ = ["numbered_groups", "refuse_shared_groups"]


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


def refuse_shared_groups(groups: Mapping[str, Sequence[str]], names: Mapping[str, str], config: Data) -> None:
    """Nothing, if no group is in two splits: what a network is judged by must be new to it. ``names``: of the splits.

    Raises:
        DataError: one is, and ``data.allow_leakage`` is false.
    """
    origin: dict[str, str] = {}
    shared: dict[str, str] = {}
    for split, of in groups.items():
        for name in of:
            if name and origin.setdefault(name, split) != split:
                shared.setdefault(name, split)
    if not shared:
        return
    first = next(iter(shared))
    text = f"group {first!r} is in {names[origin[first]]} and in {names[shared[first]]} ({len(shared)} such groups)"
    if not config.allow_leakage:
        raise DataError(
            f"{text}; what a network is judged by must be new to it: keep a group in one split, or set "
            "data.allow_leakage = true"
        )
    warn_once(f"{text}; data.allow_leakage is true, so they stay")
