"""Which files of a data folder count. Standard library only: a warm build asks this and nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dlx_deploy.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "SPLIT_FOLDERS", "image_names", "text_names"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
TEXT_SUFFIXES = (".csv", ".jsonl")
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


def text_names(folder: Path) -> list[str]:
    """The names of the files of labelled texts in ``folder``: ``train.csv`` or ``train.jsonl``, and so on.

    Raises:
        DataError: ``folder`` is not there, or has two files for a split.
    """
    if not folder.is_dir():
        raise DataError(f"data.path: {folder} is not a folder or a .csv or .jsonl file of texts")
    names = []
    for split in ("train", "validation", "test"):
        there = [f"{split}{suffix}" for suffix in TEXT_SUFFIXES if (folder / f"{split}{suffix}").is_file()]
        if len(there) > 1:
            raise DataError(f"data.path: {folder} has {' and '.join(there)}; one of them must be the split")
        names += there
    return names


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
