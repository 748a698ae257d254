"""Which images and masks of a data folder count, and its classes' names. Standard library only: a warm build asks."""

from __future__ import annotations

from pathlib import Path

from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.class_list import read_names
from dlx_deploy.nn.data.listing import refuse_meant, warn_once
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.folders import counted
from dlx_deploy.runtime.tasks.mask_folders import IMAGES, MASKS, Pairs, list_pairs, split_folders

__all__ = ["CLASSES", "MASK_FOLDERS", "list_masks", "mask_names", "named_classes"]

MASK_FOLDERS = "maskfolder"
"""The kind of data."""
CLASSES = "classes.txt"
"""The names of the classes, a line each, in the order of their values."""


def list_masks(root: Path) -> tuple[dict[str, Pairs], int]:
    """Images and masks of ``train`` and, where they are, of ``validation`` and ``test``, and how many other files.

    Raises:
        DataError: ``root`` has no training split, a folder has a name that others use for a split, an image has no
            mask, or the reverse.
    """
    if not root.is_dir():
        raise DataError(f"data.path: {root} is not a folder; it needs train/{IMAGES}/NAME.jpg and train/{MASKS}/*.png")
    for folder in (root, root / IMAGES):
        refuse_meant([p.name for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else [], folder)
    try:
        listed = {split: list_pairs(*folders) for split, folders in split_folders(root).items()}
    except (InputError, OSError) as e:
        raise DataError(f"data.path: {e}") from e
    if "train" not in listed:
        raise DataError(f"data.path: {root} has no training split; it needs train/{IMAGES} and train/{MASKS}")
    left_out = [name for _, others in listed.values() for name in others]
    if left_out:
        warn_once(f"{root}: {len(left_out)} files are left out: {counted(left_out)} (the first: {left_out[0]})")
    return {split: pairs for split, (pairs, _) in listed.items()}, len(left_out)


def mask_names(root: Path, listed: Path | None = None) -> list[str]:
    """The sorted names, relative to ``root`` and with ``/``, of all files that are read; of the list that is ``listed``
    too.

    Raises:
        DataError: as ``list_masks``.
    """
    paths = [path for pairs in list_masks(root)[0].values() for pair in pairs for path in pair]
    paths += [root / CLASSES] if (root / CLASSES).is_file() else []
    paths += [root / listed.name] if listed else []
    return sorted(path.relative_to(root).as_posix() for path in paths)


def named_classes(root: Path) -> tuple[str, ...]:
    """The names in ``classes.txt``; empty where there is no such file.

    Raises:
        DataError: it cannot be read, or names are empty or alike.
    """
    path = root / CLASSES
    return tuple(read_names(path)) if path.is_file() else ()
