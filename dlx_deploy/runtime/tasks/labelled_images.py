"""Which labelled images a folder or a list holds to be judged by, on a device. Nothing is decoded here."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

from ..errors import InputError
from ..filenames import IMAGE_SUFFIXES, LABELLED_TEXTS
from ..files import PathLike
from ..words import GROUP_COLUMN
from .folders import counted, list_classes, refuse_untested, split_entries
from .image_lists import ListedImage, read_list
from .labels import class_numbers
from .tables import columns_of, columns_there

__all__ = ["LabelledImage", "few", "labelled_images", "listed_columns", "number_of"]

_log = logging.getLogger(__name__)
_SHARDS = (".tar", ".parquet", ".arrow", ".tgz", ".tar.gz")


class LabelledImage(NamedTuple):
    """An image file and the number of its class."""

    path: Path
    number: int


def labelled_images(path: PathLike, classes: Sequence[str]) -> List[LabelledImage]:
    """The images of ``path/test/CLASS/*``, of ``path/CLASS/*``, or of the list (CSV or JSON lines) at ``path``, in the
    order of their names.

    Of folders and lists with splits it is the test split, or validation where there is neither test nor train. A class
    is named as the package names it, by the synset that its name begins with, or all are by number.

    Raises:
        InputError: no such folder or list, a class with an unknown name or no images, or only images to train on.
    """
    root = Path(path)
    if root.suffix.lower() in LABELLED_TEXTS:
        return _of_list(root, classes)
    _refuse_shards(root, [root.name])
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give one that holds a folder of images per class")
    root = _judging(root, classes)
    folder = list_classes(root)
    if not folder.images:
        _refuse_shards(root, folder.left_out)
        raise InputError(
            f"{root}: holds no class folders with images; it needs CLASS/NAME.jpg, CLASS one of: {few(classes)}"
        )
    numbers = {name: number_of(root / name, name, folder.classes, classes) for name in folder.classes}
    empty = sorted(set(folder.classes) - {group for _, group in folder.images})
    if empty:
        raise InputError(
            f"{root / empty[0]}: the class has no images ({', '.join(IMAGE_SUFFIXES)}); add some or remove the folder"
        )
    if folder.left_out:
        _log.warning("%s: %d files are left out: %s", root, len(folder.left_out), counted(folder.left_out))
    return [LabelledImage(root / name, numbers[group]) for name, group in folder.images]


def number_of(where: PathLike, name: str, among: Sequence[str], classes: Sequence[str]) -> int:
    """The number of the class that ``name`` means, one of the names ``among`` which it was found.

    Raises:
        InputError: it is none.
    """
    number = class_numbers(among, classes).get(name)
    if number is not None:
        return number
    close = difflib.get_close_matches(name, classes, n=1, cutoff=0.5)
    hint = f"nearest: {close[0]!r}" if close else f"the package knows: {few(classes)}"
    raise InputError(f"{os.fspath(where)}: {name!r} is no class of the package; {hint}")


def few(names: Sequence[str]) -> str:
    """The first of ``names``, and how many there are."""
    return ", ".join(names[:10]) + (f", … ({len(names)})" if len(names) > 10 else "")


def _refuse_shards(root: Path, names: Sequence[str]) -> None:
    shards = [name for name in names if name.lower().endswith(_SHARDS)]
    if shards:
        raise InputError(
            f"{root}: {shards[0]} holds images inside of one file, which is read where packages are built; give a "
            "device a folder of class folders, or a list (.csv, .jsonl) of files"
        )


def listed_columns(path: PathLike, names: Sequence[str]) -> Dict[str, List[str]]:
    """What each of ``labelled_images`` has in those of the columns ``names`` that its list has, in their order; nothing
    of a folder. Its group is "" where its row says none.

    Raises:
        InputError: as ``read_list``, or a row that is judged has nothing in one of them.
    """
    root = Path(path)
    if root.suffix.lower() not in LABELLED_TEXTS:
        return {}
    there = columns_there(root, names, "lists of images")
    sliced = [name for name in there if name != GROUP_COLUMN]
    rows = _judged_rows(root, sliced) if there else []
    for i, name in enumerate(sliced):
        empty = sum(not row.slices[i] for row in rows)
        if empty:
            raise InputError(
                f"{root}: {empty} of its {len(rows)} images that are judged have nothing in the column {name!r}; fill "
                "it in, or leave the column out"
            )
    return columns_of([(row.group if GROUP_COLUMN in there else "", row.slices) for row in rows], sliced)


def _of_list(path: Path, classes: Sequence[str]) -> List[LabelledImage]:
    """Those of a list, whose paths are relative to its folder."""
    chosen = _judged_rows(path)
    numbers = {name: number_of(path, name, _labels(chosen), classes) for name in _labels(chosen)}
    missing = [row.name for row in chosen if not (path.parent / row.name).is_file()]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(chosen)} images are no files below {path.parent} (the first: "
            f"{missing[0]}); put the list where its paths start"
        )
    return [LabelledImage(path.parent / row.name, numbers[row.label]) for row in chosen]


def _judged_rows(path: Path, slices: Sequence[str] = ()) -> List[ListedImage]:
    """The rows of the split to judge by, by their names."""
    rows: Dict[str, List[ListedImage]] = {}
    for row in read_list(path, slices):
        rows.setdefault(row.split, []).append(row)
    refuse_untested(rows, path)
    split = next((name for name in ("", "test", "validation") if name in rows), None)
    if split is None:
        raise InputError(f"{path}: has only rows of {', '.join(sorted(rows))}; a package is verified on those of test")
    return sorted(rows[split])


def _labels(rows: Sequence[ListedImage]) -> Tuple[str, ...]:
    return tuple(sorted({row.label for row in rows}))


def _judging(root: Path, classes: Sequence[str]) -> Path:
    """The folder in ``root`` of the split to judge by, in any case, or ``root`` itself.

    Raises:
        InputError: there are training images only.
    """
    split = split_entries([p.name for p in root.iterdir() if p.is_dir() and p.name not in classes], root)
    refuse_untested(split, root)
    return root / next((split[name] for name in ("test", "validation") if name in split), "")
