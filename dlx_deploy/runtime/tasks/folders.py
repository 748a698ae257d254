"""Which files of a folder are labelled images or texts, and which are left out.

Build and device ask here, so that they count the same files. Standard library only: a warm build asks this too.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Container, Dict, FrozenSet, Iterator, List, Sequence, Tuple

from ..errors import InputError
from ..filenames import IMAGE_SUFFIXES
from ..files import PathLike
from ..records import record
from .labels import alike, composed

__all__ = ["SPLITS", "Folder", "counted", "list_classes", "list_images", "refuse_untested", "split_entries"]

if TYPE_CHECKING:
    _Entry = os.DirEntry[str]


SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""Name of a folder, or of a file of texts without its suffix, in any case → split."""
_LITTER = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "@tmp", "#recycle", "@recycle", "#snapshot",
    "$recycle.bin", "system volume information", "lost+found",
}  # fmt: skip
"""What systems leave in folders; it and all names that begin with a dot are passed over without a word."""


@record
class Folder:
    """The class folders of one split.

    ``images``: (name relative to the folder, with ``/``; class), sorted. ``classes``: all of them, empty ones too.
    ``left_out``: names of files that are no image, or lie in no class folder.
    """

    images: Tuple[Tuple[str, str], ...]
    classes: Tuple[str, ...]
    left_out: Tuple[str, ...]


def list_classes(folder: PathLike) -> Folder:
    """The images of ``folder/CLASS/**`` by the names of their class folders, which are composed Unicode.

    Raises:
        InputError: a folder cannot be read, a name is not UTF-8, two class folders look alike, an image is no regular
            file, or a link leads back to a folder that holds it.
    """
    root = os.fspath(folder)
    images: List[Tuple[str, str]] = []
    left_out: List[str] = []
    classes: List[str] = []
    for entry in _entries(root):
        if not _is_dir(entry):
            left_out.append(entry.name)
            continue
        _refuse_control(entry.name, root)
        classes.append(entry.name)
        group = composed(entry.name)
        inside, others = _walked(entry.path, entry.name, frozenset([_place(root)]))
        images += [(name, group) for name in inside]
        left_out += others
    _refuse_alike(root, classes)
    return Folder(tuple(sorted(images)), tuple(sorted(map(composed, classes))), tuple(sorted(left_out)))


def list_images(folder: PathLike) -> Tuple[List[str], List[str]]:
    """The images in ``folder`` and below, and the other files there: names relative to it, with ``/``, sorted.

    Raises:
        InputError: as ``list_classes``, of folders and images.
    """
    images, others = _walked(os.fspath(folder), "", frozenset())
    return sorted(images), sorted(others)


def split_entries(names: Sequence[str], where: PathLike) -> Dict[str, str]:
    """Split → the one of ``names`` (folders, or files without their suffix) that is it, whatever its case.

    Raises:
        InputError: two of them are the same split.
    """
    splits: Dict[str, str] = {}
    for name in sorted(names):
        split = SPLITS.get(name.lower())
        if split is None:
            continue
        if split in splits:
            raise InputError(
                f"{os.fspath(where)}: {splits[split]!r} and {name!r} are both the {split} split; keep one of them"
            )
        splits[split] = name
    return splits


def refuse_untested(splits: Container[str], where: PathLike) -> None:
    """Nothing, unless ``splits`` has training data and none to test on.

    Raises:
        InputError: it is so.
    """
    if "train" in splits and "test" not in splits:
        raise InputError(
            f"{os.fspath(where)}: has a train folder and no test folder; a package is verified on what it was not "
            "trained on: give the folder of the test images"
        )


def counted(left_out: Sequence[str]) -> str:
    """``left_out`` for people: how many of each suffix, the most frequent first."""
    kinds = Counter(_kind(name) for name in left_out)
    parts = [f"{n} {kind}" for kind, n in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join(parts[:6]) + (", …" if len(parts) > 6 else "")


def _kind(name: str) -> str:
    suffix = os.path.splitext(name)[1].lower()
    if "/" not in name and suffix in IMAGE_SUFFIXES:
        return f"{suffix} in no class folder"
    return suffix or "without suffix"


def _walked(folder: str, prefix: str, above: FrozenSet[Tuple[int, int]]) -> Tuple[List[str], List[str]]:
    """The images below ``folder``, and the other files."""
    images: List[str] = []
    others: List[str] = []
    for name, file in _walk(folder, prefix, above):
        if name.lower().endswith(IMAGE_SUFFIXES):
            _refuse_irregular(file)
            images.append(name)
        else:
            others.append(name)
    return images, others


def _walk(folder: str, prefix: str, above: FrozenSet[Tuple[int, int]]) -> Iterator[Tuple[str, _Entry]]:
    """The files below ``folder``, their names behind ``prefix``, if any; ``above`` are the folders that hold it."""
    here = _place(folder)
    if here in above:
        raise InputError(f"{folder}: a link that leads back to a folder that holds it; remove it")
    for entry in _entries(folder):
        name = f"{prefix}/{entry.name}" if prefix else entry.name
        if _is_dir(entry):
            yield from _walk(entry.path, name, above | {here})
        else:
            yield name, entry


def _entries(folder: str) -> List[_Entry]:
    """What is in ``folder``, without litter, by name."""
    try:
        with os.scandir(folder) as entries:
            kept = sorted((e for e in entries if not _is_litter(e.name)), key=lambda e: e.name)
    except OSError as e:
        raise InputError(
            f"{e.filename or folder}: cannot be read ({e.strerror}); every image of the set must be"
        ) from e
    for entry in kept:
        if entry.name.isascii():
            continue
        try:
            entry.name.encode("utf-8")
        except UnicodeEncodeError as e:
            raise InputError(f"{folder}: the name {os.fsencode(entry.name)!r} is not UTF-8; rename it") from e
    return kept


def _is_dir(entry: _Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _place(folder: str) -> Tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError as e:
        raise InputError(f"{folder}: cannot be read ({e.strerror}); every image of the set must be") from e
    return status.st_dev, status.st_ino


def _refuse_control(name: str, root: str) -> None:
    if any(unicodedata.category(c) == "Cc" for c in name):
        raise InputError(f"{root}: the class folder {name!a} has a control character in its name; rename it")


def _refuse_irregular(entry: _Entry) -> None:
    try:
        regular = entry.is_file()
    except OSError:  # a link to itself
        regular = False
    if not regular:
        raise InputError(f"{entry.path}: a link that leads nowhere, or no regular file; replace or remove it")


def _refuse_alike(root: str, classes: Sequence[str]) -> None:
    pair = alike(classes)
    if pair:
        raise InputError(f"{root}: the classes {pair[0]!a} and {pair[1]!a} differ in their writing only; make them one")
