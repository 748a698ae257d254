"""Lists of image files with their labels: CSV or JSON lines. Build and device read them here.

Standard library only: a warm build asks this too.
"""

from __future__ import annotations

import os
import posixpath
from typing import Dict, List, NamedTuple, Sequence, Tuple

from ..errors import InputError
from ..filenames import IMAGE_SUFFIXES
from ..files import PathLike
from .folders import SPLITS
from .labels import composed
from .tables import Cells, Columns, label_of, optional_of, read_rows, slice_key, slice_of, string_of, with_slices

__all__ = ["CALIBRATION", "DescribedImage", "ListedImage", "names_images", "read_described", "read_list"]

CALIBRATION = "calibration"
"""The split of images that ranges are measured on; they need no label."""
_COLUMNS = Columns(
    {
        "path": ("path", "image", "image_path", "file", "file_name", "filename", "filepath"),
        "label": ("label", "class", "class_name"),
        "split": ("split",),
        "group": ("group",),
    },
    ("path", "label"),
    "lists of images",
)

_DESCRIBED = Columns({key: _COLUMNS.names[key] for key in ("path", "group")}, ("path",), "lists of images")
_EITHER = Columns({"path": _COLUMNS.names["path"], "text": ("text",)}, (), "samples")


class ListedImage(NamedTuple):
    """A row: the image's name relative to the list's root, with ``/``; its label ("": none, of calibration), split and
    group ("" where there is no such column), and what it has in the columns that are slices."""

    name: str
    label: str
    split: str
    group: str
    slices: Tuple[str, ...] = ()


class DescribedImage(NamedTuple):
    """A row of an image whose split and classes lie elsewhere: the number of its ``line``, its group ("": of none) and
    what it has in the columns that are slices ("": nothing)."""

    line: int
    group: str
    slices: Tuple[str, ...]


def read_list(path: PathLike, slices: Sequence[str] = ()) -> List[ListedImage]:
    """The rows of a list with columns ``path`` and ``label``, maybe ``split`` and ``group``; of others ``slices``.

    Only images of the split ``calibration`` may come without a label, and those that are not judged without slices.

    Raises:
        InputError: as ``tables.read_rows``; a path that is empty, absolute, leads out of the folder or is no image's
            by its suffix; an image that comes twice; a label, split, group or slice that is missing or unknown.
    """
    list_name = os.fspath(path)
    rows: List[ListedImage] = []
    lines: Dict[str, int] = {}
    there: Cells = {}
    for line, cells in read_rows(path, with_slices(_COLUMNS, slices)):
        where = f"{list_name}, line {line}"
        name, split = _name(cells, where), _split(cells, where)
        label = "" if split == CALIBRATION and not cells.get("label") else label_of(cells, where, "image")
        _refuse_again(lines, name, line, where)
        group = optional_of(cells, "group", where) or ""
        row = ListedImage(name, label, split, group, _slices(cells, slices, split in ("", "test"), where))
        _refuse_halves((*row[:4], *row.slices), where)
        rows.append(row)
        there.update(cells)
    if not rows:
        raise InputError(f"{list_name}: holds no images; give one a line, with its label")
    _refuse_absent(there, slices, list_name)
    if not any(row.split in ("", "test") for row in rows):
        _refuse_gaps(rows, slices, lines, list_name)
    return rows


def read_described(path: PathLike, slices: Sequence[str] = ()) -> Dict[str, DescribedImage]:
    """The name of each image of a list with the column ``path``, in composed Unicode → what it says of the image: its
    group, and what it has in the columns ``slices``. Labels and splits in it are passed over.

    Raises:
        InputError: as ``read_list``, of these columns; a slice may be missing.
    """
    list_name = os.fspath(path)
    found: Dict[str, DescribedImage] = {}
    lines: Dict[str, int] = {}
    there: Cells = {}
    for line, cells in read_rows(path, with_slices(_DESCRIBED, slices)):
        where = f"{list_name}, line {line}"
        name = composed(_name(cells, where))
        _refuse_again(lines, name, line, where)
        group = optional_of(cells, "group", where) or ""
        row = DescribedImage(line, group, _slices(cells, slices, False, where))
        _refuse_halves((name, row.group, *row.slices), where)
        found[name] = row
        there.update(cells)
    if not found:
        raise InputError(f"{list_name}: holds no images; give one a line")
    _refuse_absent(there, slices, list_name)
    return found


def _refuse_again(lines: Dict[str, int], name: str, line: int, where: str) -> None:
    """Notes the ``line`` of an image in ``lines``, if it is in no other."""
    first = lines.setdefault(name, line)
    if first != line:
        raise InputError(f"{where}: {name!r} is in line {first} already; an image is in one row: remove the other")


def _refuse_absent(there: Cells, slices: Sequence[str], list_name: str) -> None:
    """Columns that no row has; ``there``: of all rows together."""
    for name in slices:
        if slice_key(name) not in there:
            slice_of(there, slice_key(name), name, list_name)


def _refuse_gaps(rows: Sequence[ListedImage], slices: Sequence[str], lines: Dict[str, int], list_name: str) -> None:
    """A test split that is drawn from ``train``, or without it from ``validation``, may be any of its rows, so each
    must say of which slices it is."""
    drawn = "train" if any(row.split == "train" for row in rows) else "validation"
    for row in rows:
        if row.split == drawn and "" in row.slices:
            column = slices[row.slices.index("")]
            raise InputError(
                f"{list_name}, line {lines[row.name]}: there is nothing in the column {column!r}, and without rows of "
                f"the split 'test' that is drawn from {drawn!r}; fill it in"
            )


def _slices(cells: Cells, slices: Sequence[str], judged: bool, where: str) -> Tuple[str, ...]:
    """What a row has in the columns ``slices``; "" where it has nothing, and is not ``judged``."""
    found = []
    for name in slices:
        key = slice_key(name)
        nothing = cells.get(key) in (None, "")
        found.append("" if nothing and not judged else slice_of(cells, key, name, where))
    return tuple(found)


def _refuse_halves(texts: Sequence[str], where: str) -> None:
    """JSON can write ``\\ud83d`` without its other half, which no file can hold."""
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as e:
            raise InputError(f"{where}: {text[:60]!a} holds half of a character; write both halves") from e


def names_images(path: PathLike) -> bool:
    """Whether the table at ``path`` is a list of images: its first row has a path and no text.

    Raises:
        InputError: it cannot be read, or has no rows.
    """
    for _, cells in read_rows(path, _EITHER):
        return "path" in cells and "text" not in cells
    raise InputError(f"{os.fspath(path)}: holds no rows; give texts, or paths of images, with their labels")


def _name(cells: Cells, where: str) -> str:
    given = string_of(cells, "path", where)
    name = posixpath.normpath(given.strip())
    if os.path.isabs(name) or name.split("/")[0] == "..":
        raise InputError(
            f"{where}: {given!r} leads out of the folder that paths are relative to; write them relative to it, or "
            "name another as data.root"
        )
    if not name.lower().endswith(IMAGE_SUFFIXES):
        hint = "; separate folders by /" if "\\" in name else ""
        formats = ", ".join(IMAGE_SUFFIXES)
        raise InputError(f"{where}: {given!r} is no image by its suffix; must be one of {formats}{hint}")
    return name


def _split(cells: Cells, where: str) -> str:
    given = optional_of(cells, "split", where)
    if given is None:
        return ""
    split = CALIBRATION if given.lower() == CALIBRATION else SPLITS.get(given.lower())
    if split is None:
        raise InputError(f"{where}: the split is {given!r}; must be train, validation (or val), test or {CALIBRATION}")
    return split
