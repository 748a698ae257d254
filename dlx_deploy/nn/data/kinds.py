"""Which kind of data a path holds, by its folders and files. Standard library only."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from dlx_deploy.config import LAYOUTS, Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.catalogue import open_catalogue
from dlx_deploy.nn.data.shards import SHARDS
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.filenames import IMAGE_SUFFIXES, LABELLED_TEXTS
from dlx_deploy.runtime.tasks.folders import SPLITS
from dlx_deploy.runtime.tasks.image_lists import names_images
from dlx_deploy.runtime.tasks.mask_folders import IMAGES, MASKS

__all__ = ["has_training", "kind_of", "may_judge_only"]

_LOOKED_AT = 1000
"""Entries of a folder: enough to tell, whatever it holds."""


def kind_of(path: Path) -> str:
    """The value of ``data.kind`` for what is at ``path``.

    Raises:
        DataError: nothing is there, or nothing that can be told apart: what was seen, and what each kind looks like.
    """
    if path.is_file():
        if path.suffix.lower() in LABELLED_TEXTS:
            return _kind_of_table(path)
        for kind, suffixes in SHARDS.items():
            if path.suffix.lower() in suffixes:
                return kind
        raise DataError(
            f"{path}: is a {path.suffix or 'nameless'} file; data are a folder, or texts or a list of images as .csv "
            "or .jsonl"
        )
    if not path.is_dir():
        raise DataError(f"{path}: no such folder or file; give the folder that holds train/CLASS/*.jpg, for instance")
    try:
        return _kind_of_folder(path)
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}); give a folder that this user may read") from e
    except InputError as e:
        raise DataError(f"{path}: {e}") from e


def has_training(data: Data) -> bool:
    """Whether there is something to train on; of kinds other than labelled images there always must be.

    Raises:
        DataError: the images cannot be listed.
    """
    return data.kind not in LAYOUTS or "train" in open_catalogue(data).samples


def may_judge_only(data: Data) -> bool:
    """Whether ``data.use`` is for data of this kind: all of them may be there to judge by."""
    return data.kind in LAYOUTS


def _kind_of_folder(path: Path) -> str:
    entries = [entry for entry in islice(sorted(path.iterdir()), _LOOKED_AT) if not entry.name.startswith(".")]
    splits = [entry for entry in entries if entry.is_dir() and entry.name.lower() in SPLITS]
    for folder in (path, *splits):
        if (folder / IMAGES).is_dir() and (folder / MASKS).is_dir():
            return "maskfolder"
    if any(e.is_file() and e.suffix.lower() in LABELLED_TEXTS and e.stem.lower() in SPLITS for e in entries):
        return "text"
    if any(_has_classes(split) for split in splits) or _has_classes(path):
        return "imagefolder"
    for kind, suffixes in SHARDS.items():
        if any(file.suffix.lower() in suffixes for file in islice(path.rglob("*"), _LOOKED_AT)):
            return kind
    names = ", ".join(entry.name + "/" * entry.is_dir() for entry in entries[:5]) or "nothing"
    raise DataError(
        f"{path}: holds {names}, which is none of: train/CLASS/*.jpg or CLASS/*.jpg (pictures of classes), "
        f"train/{IMAGES} with train/{MASKS} (a class for each pixel), train.csv or train.jsonl (texts), "
        "train-00000.tar, train-00000.parquet"
    )


def _kind_of_table(path: Path) -> str:
    try:
        return "imagelist" if names_images(path) else "text"
    except InputError as e:
        raise DataError(str(e)) from e


def _has_classes(split: Path) -> bool:
    """Whether folders in ``split`` hold images."""
    folders = (entry for entry in islice(split.iterdir(), _LOOKED_AT) if entry.is_dir())
    return any(f.suffix.lower() in IMAGE_SUFFIXES for folder in folders for f in islice(folder.rglob("*"), _LOOKED_AT))
