"""Tables of samples, CSV or JSON lines: their rows by the names of columns, and each fault by its line.

Standard library only: a warm build asks this too.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import io
import json
import os
import unicodedata
from typing import BinaryIO, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, TextIO, Tuple

from ..errors import InputError
from ..filenames import CSV, JSONL
from ..files import PathLike, open_file, reason
from ..records import record
from ..words import GROUP_COLUMN
from .labels import composed

__all__ = [
    "Cells",
    "Columns",
    "columns_of",
    "columns_there",
    "label_of",
    "optional_of",
    "read_rows",
    "slice_key",
    "slice_of",
    "string_of",
    "with_slices",
]

Cells = Dict[str, object]
"""Column → what a row has there, ``None`` where it ends before; under "" the names of all columns, for messages."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
MISSING = {"nan", "-nan", "nat", "<na>", "#n/a", "#na", "n/a", "null"}
"""What spreadsheets and data frames write for a value that is not there, in any case …"""
_MISSING_EXACTLY = {"None", "NA"}
"""… and what only in this one: ``none`` is a class that people have."""


@record
class Columns:
    """The columns that are read: ``names`` is key → what a header may call it, in lower case, the first of which is
    shown. ``needed``: the keys that every row must have. ``noun``: what the rows are."""

    names: Mapping[str, Sequence[str]]
    needed: Sequence[str]
    noun: str

    def places(self, header: Sequence[str], where: str) -> Dict[str, int]:
        """Key → its place in ``header``.

        Raises:
            InputError: two columns are the same key.
        """
        folded = [_folded(cell) for cell in header]
        places: Dict[str, int] = {}
        for key, names in self.names.items():
            there = [i for i, cell in enumerate(folded) if cell in names]
            if len(there) > 1:
                raise InputError(f"{where}: has {len(there)} columns {names[0]!r}; keep one")
            if there:
                places[key] = there[0]
        return places


def read_rows(path: PathLike, columns: Columns) -> Iterator[Tuple[int, Cells]]:
    """The number of its line and the cells of each row of a CSV file with a header, or of a file of JSON lines.

    Raises:
        InputError: no such file, another suffix or encoding, a line that is none of its format, has too many columns
            or repeats the header.
    """
    name = os.fspath(path)
    readers: Dict[str, Callable[[TextIO, str, Columns], Iterator[Tuple[int, Cells]]]] = {
        CSV: _csv_rows,
        JSONL: _json_rows,
    }
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in readers:
        shown = " and ".join(columns.names[key][0] for key in columns.needed)
        raise InputError(f"{name}: {columns.noun} are a .csv file with columns {shown}, or a .jsonl file")
    try:
        with open_file(name) as raw, _long_fields(name):
            _refuse_utf16(raw, name)
            stream = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            yield from readers[suffix](stream, name, columns)
    except UnicodeDecodeError as e:
        raise InputError(f"{name}: is not UTF-8 ({e.reason} at byte {e.start}); save it as UTF-8") from e
    except (OSError, ValueError) as e:
        raise InputError(f"{name}: cannot be read ({reason(e)})") from e


def string_of(row: Cells, key: str, where: str) -> str:
    """The text in the column ``key`` of ``row``.

    Raises:
        InputError: there is none, or something else.
    """
    value = _value(row, key, where)
    if not isinstance(value, str):
        raise InputError(f"{where}: the {key} is {_kind(value)}; must be a string")
    _refuse_empty(value, key, where)
    if value.strip().lower() in MISSING - {"null", "n/a"}:
        raise InputError(f"{where}: the {key} is {value!r}, which stands for a missing one; remove the line")
    return value


def label_of(row: Cells, where: str, noun: str) -> str:
    """The label of ``row``, a ``noun``'s one class: composed Unicode, without the spaces around it.

    Raises:
        InputError: there is none, what stands for a missing one, or something else.
    """
    value = _value(row, "label", where)
    if isinstance(value, (list, dict)):
        raise InputError(f"{where}: the label is {_kind(value)}; must be a string or a number, the {noun}'s one class")
    label = composed(str(value)).strip()
    _refuse_empty(label, "label", where)
    if any(unicodedata.category(c) == "Cc" for c in label):
        raise InputError(f"{where}: the label {label[:40]!a} holds a control character; a label is one line")
    if label.lower() in MISSING or label in _MISSING_EXACTLY:
        raise InputError(
            f"{where}: the label is {label!r}, which stands for a missing one; fill it in, remove the line, or call "
            "the class otherwise"
        )
    return label


def optional_of(row: Cells, key: str, where: str) -> Optional[str]:
    """What the column ``key`` says, as a label is read: composed Unicode, without the spaces around it; or ``None``
    where there is no such column.

    Raises:
        InputError: the column is there, and in this row empty, what stands for a missing one, or something else.
    """
    if key not in row:
        return None
    value = row[key]
    if isinstance(value, (bool, list, dict)):
        raise InputError(f"{where}: the {key} is {_kind(value)}; must be a string or a number")
    text = "" if value is None else composed(str(value)).strip()
    if not text:
        raise InputError(f"{where}: the {key} is empty; fill it in, or leave the column out")
    _refuse_unseen(text, f"the {key}", where)
    return text


def with_slices(columns: Columns, slices: Sequence[str]) -> Columns:
    """The ``columns``, and those called ``slices``, in any case."""
    names = {slice_key(name): (name.strip().lower(),) for name in slices}
    return Columns({**columns.names, **names}, columns.needed, columns.noun)


def columns_there(path: PathLike, names: Sequence[str], noun: str) -> List[str]:
    """Those of ``names``, in any case, that a row of the table at ``path`` has; ``noun``: what its rows are.

    Rows of JSON lines have keys of their own, so all are looked at: what the first lacks is not passed over.

    Raises:
        InputError: as ``read_rows``.
    """
    there = {key for _, cells in read_rows(path, with_slices(Columns({}, (), noun), names)) for key in cells}
    return [name for name in names if slice_key(name) in there]


def columns_of(rows: Sequence[Tuple[str, Sequence[str]]], slices: Sequence[str]) -> Dict[str, List[str]]:
    """Column → what each of ``rows``, a group and values in the columns ``slices``, has there; groups where there are
    some, "" for a row that is of none."""
    found = {name: [values[i] for _, values in rows] for i, name in enumerate(slices)}
    groups = [group for group, _ in rows]
    return {**found, GROUP_COLUMN: groups} if any(groups) else found


def slice_key(name: str) -> str:
    """The key of a column that is a slice: not that of ``label`` or ``group``, which may be sliced by too."""
    return f"slice {name}"


def slice_of(row: Cells, key: str, name: str, where: str) -> str:
    """The value of ``row`` in the column ``name``, which is there by ``key``: one line, without the spaces around it.

    Raises:
        InputError: there is no such column, or no value, what stands for a missing one, or something else.
    """
    if key not in row:
        header = str(row[""]).split(", ")
        near = difflib.get_close_matches(name.lower(), [cell.lower() for cell in header], n=1, cutoff=0.5)
        raise InputError(f"{where}: has no column {name!r}; " + (f"nearest: {near[0]!r}" if near else f"has {row['']}"))
    value = row[key]
    if isinstance(value, (list, dict)):
        raise InputError(f"{where}: the column {name!r} is {_kind(value)}; must be a string or a number")
    text = "" if value is None else composed(str(value)).strip()
    if not text:
        raise InputError(
            f"{where}: the column {name!r} is empty; a sample that may be judged is of a slice: fill it in"
        )
    _refuse_unseen(text, f"the column {name!r}", where)
    return text


def _csv_rows(stream: TextIO, name: str, columns: Columns) -> Iterator[Tuple[int, Cells]]:
    reader = csv.reader(stream, strict=True)
    try:
        header = next((row for row in reader if row), [])
        places = columns.places(header, f"{name}, line {max(reader.line_num, 1)}")
        _refuse_separator(header, name)
        for cells in reader:
            if not cells:
                continue
            where = f"{name}, line {reader.line_num}"
            if len(cells) > len(header):
                raise InputError(
                    f"{where}: has {len(cells)} columns and the header {len(header)}; write {columns.noun.split()[-1]} "
                    "with commas in quotes"
                )
            row = {key: cells[i] if i < len(cells) else None for key, i in places.items()}
            if columns.needed and all(key in row and _folded(row[key]) in columns.names[key] for key in columns.needed):
                raise InputError(f"{where}: is the header once more; remove it")
            yield reader.line_num, {**row, "": ", ".join(header)}
    except csv.Error as e:
        raise InputError(f"{name}, line {reader.line_num}: not CSV ({e}); write quotes in a text twice") from e


def _refuse_separator(header: Sequence[str], name: str) -> None:
    for sign, said in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and sign in header[0]:
            raise InputError(f"{name}: its columns are separated by {said}; save it with commas")


def _json_rows(stream: TextIO, name: str, columns: Columns) -> Iterator[Tuple[int, Cells]]:
    for line, text in enumerate(stream, 1):
        if not text.strip():
            continue
        where = f"{name}, line {line}"
        try:
            pairs = json.loads(text, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as e:
            raise InputError(f"{where}: not JSON ({e})") from e
        if not isinstance(pairs, _Pairs):
            shown = ", ".join(f'"{columns.names[key][0]}": …' for key in columns.needed)
            raise InputError(f"{where}: is {text.strip()[:40]!r}; must be {{{shown}}}")
        header = [str(key) for key, _ in pairs]
        cells = {key: pairs[i][1] for key, i in columns.places(header, where).items()}
        yield line, {**cells, "": ", ".join(header)}


class _Pairs(List[Tuple[str, object]]):
    """A JSON object whose keys may come twice."""


def _value(row: Cells, key: str, where: str) -> object:
    if key in row and row[key] is None:
        raise InputError(f"{where}: the {key} is missing; fill it in or remove the line")
    if key not in row:
        raise InputError(f"{where}: has no {key!r}; has {row['']}")
    return row[key]


def _refuse_empty(value: str, key: str, where: str) -> None:
    if not value.strip():
        raise InputError(f"{where}: the {key} is empty; fill it in or remove the line")
    if "\0" in value:
        raise InputError(f"{where}: the {key} holds a NUL character; is the file UTF-16? Save it as UTF-8")


def _refuse_unseen(text: str, what: str, where: str) -> None:
    if any(unicodedata.category(c) == "Cc" for c in text):
        raise InputError(f"{where}: {what} is {text[:40]!a}, which holds a control character; remove it")
    if text.lower() in MISSING or text in _MISSING_EXACTLY:
        raise InputError(f"{where}: {what} is {text!r}, which stands for a missing one; fill it in")


def _refuse_utf16(raw: BinaryIO, name: str) -> None:
    start = raw.read(256)
    raw.seek(0)
    if start[:2] in _UTF16 or b"\0" in start:
        raise InputError(f"{name}: is UTF-16, not UTF-8; save it as UTF-8")


def _kind(value: object) -> str:
    return {list: "a list", _Pairs: "an object", dict: "an object", bool: "true or false"}.get(type(value), "a number")


def _folded(cell: object) -> str:
    return str(cell).strip().lower()


@contextlib.contextmanager
def _long_fields(name: str) -> Iterator[None]:
    """Fields as long as the file: the csv module's limit is not this format's."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, min(os.path.getsize(name), 2**31 - 1)))
    try:
        yield
    finally:
        csv.field_size_limit(before)
