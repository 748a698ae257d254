"""The list beside images with masks: the group of each image, and of which slices it is. Build and device read it here.

Standard library only: a warm build asks this too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence

from ..errors import InputError
from ..files import PathLike
from ..words import GROUP_COLUMN
from .image_lists import DescribedImage, read_described
from .labels import composed
from .mask_folders import judged_pairs
from .tables import columns_of, columns_there

__all__ = ["LISTS", "columns_in", "described", "find_list", "listed_columns"]

LISTS = ("list.csv", "list.jsonl")
"""Its names. Paths in it are relative to the folder that it lies in, as in ``test/images/7.png``."""


def find_list(root: Path) -> Optional[Path]:
    """The list in the folder ``root``, if there is one.

    Raises:
        InputError: there are two.
    """
    there = [root / name for name in LISTS if (root / name).is_file()]
    if len(there) > 1:
        raise InputError(f"{root}: has {' and '.join(LISTS)}; keep one of them")
    return there[0] if there else None


def columns_in(path: Path, names: Sequence[str]) -> List[str]:
    """Those of the columns ``names``, in any case, that the list at ``path`` has.

    Raises:
        InputError: as ``tables.columns_there``.
    """
    return columns_there(path, names, "lists of images")


def described(
    path: Path, rows: Mapping[str, DescribedImage], images: Sequence[Path], slices: Sequence[str]
) -> List[DescribedImage]:
    """What ``rows``, those of the list at ``path``, say of ``images``, in their order, each in all of ``slices``.

    Raises:
        InputError: an image is in no row, or its row has nothing in one of them.
    """
    names = [composed(image.relative_to(path.parent).as_posix()) for image in images]
    missing = [name for name in names if name not in rows]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(names)} images are in none of its rows (the first: {missing[0]}); give "
            f"each a row, with its path as it is from {path.parent} on"
        )
    found = [rows[name] for name in names]
    for i, column in enumerate(slices):
        empty = [(row.line, name) for row, name in zip(found, names) if not row.slices[i]]
        if empty:
            raise InputError(
                f"{path}, line {empty[0][0]}: {empty[0][1]} has nothing in the column {column!r} ({len(empty)} of "
                f"{len(names)} images that are judged); fill it in"
            )
    return found


def listed_columns(path: PathLike, names: Sequence[str]) -> Dict[str, List[str]]:
    """What each of ``labelled_pairs`` has in those of the columns ``names`` that the list in their folder has; nothing
    where there is none. Its group is "" where its row says none.

    Raises:
        InputError: as ``find_list``, ``read_described``, ``judged_pairs`` and ``described``.
    """
    root = Path(path)
    listed = find_list(root)
    there = columns_in(listed, names) if listed else []
    if listed is None or not there:
        return {}
    sliced = [name for name in there if name != GROUP_COLUMN]
    images = [image for image, _ in judged_pairs(root)[0]]
    rows = described(listed, read_described(listed, sliced), images, sliced)
    return columns_of([(row.group if GROUP_COLUMN in there else "", row.slices) for row in rows], sliced)
