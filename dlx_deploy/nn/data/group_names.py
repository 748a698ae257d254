"""What groups of samples are called. Standard library only: a warm build asks this."""

from __future__ import annotations

from collections.abc import Iterable

from dlx_deploy.errors import DataError
from dlx_deploy.runtime.tasks.labels import alike

__all__ = ["refuse_alike_groups"]


def refuse_alike_groups(groups: Iterable[str], where: str) -> None:
    """Nothing, if no two of ``groups`` ("": none) are one in two spellings: as two, one could be in two splits.

    Raises:
        DataError: two are; ``where`` they are.
    """
    pair = alike(name for name in groups if name)
    if pair:
        raise DataError(f"{where}: the groups {pair[0]!a} and {pair[1]!a} differ in their writing only; make them one")
