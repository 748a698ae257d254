"""What groups of samples are called, and that none is in two splits. Standard library only: a warm build asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.listing import warn_once
from dlx_deploy.runtime.tasks.labels import alike

__all__ = ["refuse_alike_groups", "refuse_shared_groups"]


def refuse_alike_groups(groups: Iterable[str], where: str) -> None:
    """Nothing, if no two of ``groups`` ("": none) are one in two spellings: as two, one could be in two splits.

    Raises:
        DataError: two are; ``where`` they are.
    """
    pair = alike(name for name in groups if name)
    if pair:
        raise DataError(f"{where}: the groups {pair[0]!a} and {pair[1]!a} differ in their writing only; make them one")


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
