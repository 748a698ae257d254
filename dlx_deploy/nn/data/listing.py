"""Which files of a data folder count. Standard library only: a warm build asks this and nothing heavy."""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlx_deploy.errors import DataError
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.filenames import IMAGE_SUFFIXES, LABELLED_TEXTS
from dlx_deploy.runtime.tasks.folders import SPLITS, Folder, counted, list_classes, split_entries
from dlx_deploy.runtime.tasks.folders import list_images as list_below
from dlx_deploy.runtime.tasks.image_lists import CALIBRATION
from dlx_deploy.runtime.tasks.labels import class_order

__all__ = [
    "ALL",
    "CALIBRATION",
    "ImageFolder",
    "image_names",
    "left_out_tables",
    "list_folder",
    "refuse_meant",
    "require_classes",
    "split_of",
    "text_names",
    "warn_once",
]

log = logging.getLogger(__name__)

_MEANT = ("dev", "development", "eval", "evaluation", "holdout", "testing", "tests", "training", "valid", "validate")
"""Names that others use for a split: passing over such a folder or file would draw another split quietly."""
ALL = "all"
"""The images of a folder of class folders, before they are split."""
_LOOKED_AT = 20
_PROGRAMS = (".py", ".sh", ".ipynb", ".md")
"""``train.py`` beside the folder ``train`` holds no data."""


@dataclass(frozen=True)
class ImageFolder:
    """An imagefolder: ``names`` is split → its folder's name, ``splits`` what is in it, ``left_out`` what is not used
    (names relative to ``root``). Class folders without folders of splits are the split ``ALL``, named ""."""

    root: Path
    names: dict[str, str]
    splits: dict[str, Folder]
    left_out: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of their numbers: those of the training split, or of all where there is none."""
        own = [self.splits["train"]] if "train" in self.splits else self.splits.values()
        return tuple(class_order(name for part in own for name in part.classes))

    def path(self, split: str) -> Path:
        """The folder of ``split``."""
        return self.root / self.names[split]

    def name(self, split: str, name: str) -> str:
        """The name of an image of ``split``, relative to ``root``."""
        return f"{self.names[split]}/{name}" if self.names[split] else name


def image_names(folder: Path) -> list[str]:
    """The sorted names, relative to ``folder`` and with ``/``, of the images in class folders below its split folders.

    Raises:
        DataError: see ``list_folder``.
    """
    listed = list_folder(folder)
    return sorted(listed.name(split, name) for split, part in listed.splits.items() for name, _ in part.images)


def list_folder(folder: Path) -> ImageFolder:
    """What an imagefolder holds, as it is; what is left out is said once, as a warning.

    Raises:
        DataError: ``folder`` is not there, one of its folders cannot be read, a name cannot be used, or a folder has
            a name that others use for a split.
    """
    if not folder.is_dir():
        raise DataError(
            f"data.path: {folder} is not a folder; an imagefolder has {folder.name}/train/CLASS/*.jpg (or "
            f"{', '.join(IMAGE_SUFFIXES)})"
        )
    try:
        entries = sorted(os.listdir(folder))
        folders = [name for name in entries if (folder / name).is_dir()]
        names = {**split_entries(folders, folder), **_calibration_folder(folders)}
        refuse_meant(folders, folder)
        if not names and any(_holds_images(folder / name) for name in folders):
            _refuse_splits_below(folder, folders)
            names = {ALL: ""}
        splits = {split: _listed(folder / name, split) for split, name in sorted(names.items())}
    except InputError as e:
        raise DataError(f"data.path: {e}") from e
    except OSError as e:
        raise DataError(f"data.path: {folder}: cannot be read ({e.strerror})") from e
    loose = [] if ALL in splits else [name for name in entries if name not in folders and _is_meant(name)]
    listed = ImageFolder(folder, names, splits, ())
    left_out = (*loose, *(listed.name(split, name) for split, part in splits.items() for name in part.left_out))
    others = [name for name in folders if name not in names.values() and _shows_images(folder / name)]
    if others and ALL not in splits:
        warn_once(
            f"{folder}: the images in {', '.join(others[:5])} are left out; splits are train, validation and test"
        )
    if left_out:
        kinds = counted([name.partition("/")[2] or name for name in left_out])
        warn_once(
            f"{folder}: {len(left_out)} files are left out: {kinds} (the first: {left_out[0]}); images are "
            f"SPLIT/CLASS/NAME with one of {', '.join(IMAGE_SUFFIXES)}"
        )
    return replace(listed, left_out=left_out)


def _calibration_folder(folders: Sequence[str]) -> dict[str, str]:
    """The folder of images that ranges are measured on, in any case."""
    names = [name for name in folders if name.lower() == CALIBRATION]
    return {CALIBRATION: names[0]} if names else {}


def _listed(path: Path, split: str) -> Folder:
    """What the folder of a split holds; images for calibration need no class folders, and have no class."""
    if split != CALIBRATION:
        return list_classes(path)
    images, others = list_below(path)
    return Folder(tuple((name, "") for name in images), (), tuple(others))


def _holds_images(folder: Path) -> bool:
    """Whether a folder looks like a class: an image among its first files."""
    if folder.name.startswith("."):
        return False
    try:
        return any(p.suffix.lower() in IMAGE_SUFFIXES for p in itertools.islice(folder.iterdir(), _LOOKED_AT))
    except OSError:
        return False


def _refuse_splits_below(folder: Path, folders: Sequence[str]) -> None:
    """Refuse a folder one too high: its folders would be taken for classes."""
    for name in folders:
        inside = [p.name for p in (folder / name).iterdir() if p.is_dir()]
        if split_entries(inside, folder / name):
            raise DataError(
                f"data.path: {folder} holds folders of images, and {name} in it holds splits "
                f"({', '.join(inside[:3])}); give {folder / name}"
            )


def _is_meant(name: str) -> bool:
    """Whether a file beside the split folders may be meant as data: an image, or a split in an archive or a table."""
    image = name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
    return image or (name.partition(".")[0].lower() in SPLITS and not name.lower().endswith(_PROGRAMS))


def _shows_images(folder: Path) -> bool:
    """Whether a folder that is no split looks like one: images in its first level or the next, as far as is quick."""
    if folder.name.startswith("."):
        return False
    try:
        here = list(itertools.islice(folder.iterdir(), _LOOKED_AT))
        below = (p for d in here if d.is_dir() for p in itertools.islice(d.iterdir(), _LOOKED_AT))
        return any(p.suffix.lower() in IMAGE_SUFFIXES for p in itertools.chain(here, below))
    except OSError:
        return False


def require_classes(missing: Sequence[str], where: str, allow_missing: bool) -> None:
    """Refuse that ``where`` has none of the classes ``missing``, or only say so.

    Raises:
        DataError: it does, and it is not allowed.
    """
    if not missing:
        return
    text = f"{where}: nothing of class {missing[0]!r} ({len(missing)} such)"
    if not allow_missing:
        raise DataError(
            f"{text}, so nothing is known of the network there; add some, or set data.allow_missing_classes = true"
        )
    warn_once(f"{text}: nothing is known of the network there")


@functools.lru_cache(maxsize=256)
def warn_once(text: str) -> None:
    """Log ``text`` as a warning; again in this process only after many others. A plan and its stage both look."""
    log.warning("%s", text)


def text_names(folder: Path) -> list[str]:
    """The names of the files of labelled texts in ``folder``: ``train.csv`` or ``train.jsonl``, and so on.

    Raises:
        DataError: ``folder`` is not there, has two files for a split, or one with a name that others use for a split.
    """
    if not folder.is_dir():
        raise DataError(f"data.path: {folder} is not a folder or a .csv or .jsonl file of texts")
    files = [p.name for p in folder.iterdir() if p.is_file() and p.suffix.lower() in LABELLED_TEXTS]
    files = [name for name in files if not name.startswith(".")]
    names = []
    for split in ("train", "validation", "test"):
        there = [name for name in sorted(files) if split_of(name) == split]
        if len(there) > 1:
            raise DataError(f"data.path: {folder} has {' and '.join(there)}; one of them must be the split")
        names += there
    refuse_meant([Path(name).stem for name in files], folder)
    left_out = left_out_tables(folder, names)
    if left_out:
        warn_once(
            f"{folder}: {len(left_out)} files are left out (the first: {left_out[0]}); a split is train, validation "
            "(or val) or test with .csv or .jsonl"
        )
    return names


def left_out_tables(folder: Path, names: Sequence[str]) -> list[str]:
    """Files of ``folder`` that are none of ``names``: tables, or what is called like a split (.tsv, .csv.gz)."""
    others = sorted(p for p in folder.iterdir() if p.name not in names and not p.name.startswith("."))
    return [p.name for p in others if p.suffix.lower() in LABELLED_TEXTS or _is_meant(p.name)]


def split_of(name: str) -> str | None:
    """The split that a file of texts is, by its name, or ``None``."""
    return next(iter(split_entries([Path(name).stem], "")), None)


def refuse_meant(names: Sequence[str], folder: Path) -> None:
    """Refuse folders, or files without their suffix, that others would call a split and we do not.

    Raises:
        DataError: there is one.
    """
    meant = sorted(name for name in names if name.lower() in _MEANT)
    if meant:
        raise DataError(
            f"data.path: {folder} has {meant[0]!r}, which is no split's name; call it train, validation (or val) or "
            "test, or move it elsewhere"
        )
