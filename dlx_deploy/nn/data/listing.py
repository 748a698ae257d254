"""Which files of an image folder are its images. Standard library only: a warm build asks this and nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dlx_deploy.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "SPLIT_FOLDERS", "image_names"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
SPLIT_FOLDERS = ("train", "validation", "val", "test")


def image_names(folder: Path) -> list[str]:
    """The sorted names, relative to ``folder`` and with ``/``, of the images below its split folders.

    An image has a suffix of ``IMAGE_SUFFIXES`` in any case; names that begin with a dot are passed over.

    Raises:
        DataError: ``folder`` is not there, or one of its folders cannot be read.
    """
    if not folder.is_dir():
        raise DataError(
            f"data.path: {folder} is not a folder; an imagefolder has {folder.name}/train/CLASS/*.jpg (or .png)"
        )
    splits = [split for split in SPLIT_FOLDERS if (folder / split).is_dir()]
    return sorted(name for split in splits for name in _walk(str(folder / split), split))


def _walk(folder: str, prefix: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from _walk(entry.path, f"{prefix}/{entry.name}")
                elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                    yield f"{prefix}/{entry.name}"
    except OSError as e:
        raise DataError(f"{e.filename or folder}: cannot be read ({e.strerror}); every image of the set must be") from e
