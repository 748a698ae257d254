"""Labelled texts in CSV and JSON lines: every row is a text and its class, or the file is refused by line."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import unicodedata
from typing import BinaryIO, Callable, Dict, Iterator, List, Sequence, TextIO, Tuple

from ..errors import InputError
from ..filenames import CSV, JSONL
from ..files import PathLike, open_file, reason
from .labels import alike, composed

__all__ = ["distinct", "read_texts"]

KEYS = ("text", "label")

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MISSING = {"nan", "-nan", "nat", "<na>", "#n/a", "#na", "n/a", "null"}
"""What spreadsheets and data frames write for a value that is not there, in any case …"""
_MISSING_EXACTLY = {"None", "NA"}
"""… and what only in this one: ``none`` is a class that people have."""


def read_texts(path: PathLike) -> Tuple[List[str], List[str]]:
    """The texts and the labels in a CSV file with columns ``text`` and ``label``, or in JSON lines with these keys.

    Other columns do not matter, nor does the case of these two. Labels lose the spaces around them and are composed
    Unicode; a number in JSON is the label that its digits spell.

    Raises:
        InputError: no such file, another suffix or encoding, a line without a text or a label, with too many columns,
            or that repeats the header, a label that stands for a missing one, or two that look alike.
    """
    name = os.fspath(path)
    readers: Dict[str, Callable[[TextIO, str], Iterator[_Row]]] = {CSV: _csv_rows, JSONL: _json_rows}
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in readers:
        raise InputError(f"{name}: labelled texts are a .csv file with columns text and label, or a .jsonl file")
    texts: List[str] = []
    labels: List[str] = []
    try:
        with open_file(name) as raw, _long_fields(name):
            _refuse_utf16(raw, name)
            stream = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            for line, row in readers[suffix](stream, name):
                where = f"{name}, line {line}"
                texts.append(_text(row, where))
                labels.append(_label(row, where))
    except UnicodeDecodeError as e:
        raise InputError(f"{name}: is not UTF-8 ({e.reason} at byte {e.start}); save it as UTF-8") from e
    except (OSError, ValueError) as e:
        raise InputError(f"{name}: cannot be read ({reason(e)})") from e
    if not texts:
        raise InputError(f"{name}: holds no texts; give one a line, with its label")
    pair = alike(labels)
    if pair:
        raise InputError(f"{name}: the labels {pair[0]!a} and {pair[1]!a} differ in their writing only; make them one")
    return texts, labels


def distinct(text: str) -> str:
    """What two texts have in common that differ in spaces and Unicode's forms only: they count as one."""
    return " ".join(composed(text).split())


_Cells = Dict[str, object]
_Row = Tuple[int, _Cells]


def _csv_rows(stream: TextIO, name: str) -> Iterator[_Row]:
    reader = csv.reader(stream, strict=True)
    try:
        header = next((row for row in reader if row), [])
        columns = _columns(header, f"{name}, line {max(reader.line_num, 1)}")
        _refuse_separator(header, name)
        for cells in reader:
            if not cells:
                continue
            where = f"{name}, line {reader.line_num}"
            if len(cells) > len(header):
                raise InputError(
                    f"{where}: has {len(cells)} columns and the header {len(header)}; write texts with commas in quotes"
                )
            row = {key: cells[i] if i < len(cells) else None for key, i in columns.items()}
            if all(key in row and _folded(row[key]) == key for key in KEYS):
                raise InputError(f"{where}: is the header once more; remove it")
            yield reader.line_num, {**row, "": ", ".join(header)}
    except csv.Error as e:
        raise InputError(f"{name}, line {reader.line_num}: not CSV ({e}); write quotes in a text twice") from e


def _columns(header: Sequence[str], where: str) -> Dict[str, int]:
    """Where the two columns are."""
    folded = [_folded(cell) for cell in header]
    for key in KEYS:
        if folded.count(key) > 1:
            raise InputError(f"{where}: has {folded.count(key)} columns {key!r}; keep one")
    return {key: folded.index(key) for key in KEYS if key in folded}


def _refuse_separator(header: Sequence[str], name: str) -> None:
    for sign, said in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and sign in header[0]:
            raise InputError(f"{name}: its columns are separated by {said}; save it with commas")


def _json_rows(stream: TextIO, name: str) -> Iterator[_Row]:
    for line, text in enumerate(stream, 1):
        if not text.strip():
            continue
        where = f"{name}, line {line}"
        try:
            pairs = json.loads(text, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as e:
            raise InputError(f"{where}: not JSON ({e})") from e
        if not isinstance(pairs, _Pairs):
            raise InputError(f'{where}: is {text.strip()[:40]!r}; must be {{"text": …, "label": …}}')
        header = [str(key) for key, _ in pairs]
        yield line, {**{key: pairs[i][1] for key, i in _columns(header, where).items()}, "": ", ".join(header)}


class _Pairs(List[Tuple[str, object]]):
    """A JSON object whose keys may come twice."""


def _text(row: _Cells, where: str) -> str:
    value = _value(row, "text", where)
    if not isinstance(value, str):
        raise InputError(f"{where}: the text is {_kind(value)}; must be a string")
    _refuse_empty(value, "text", where)
    if value.strip().lower() in _MISSING - {"null", "n/a"}:
        raise InputError(f"{where}: the text is {value!r}, which stands for a missing one; remove the line")
    return value


def _label(row: _Cells, where: str) -> str:
    value = _value(row, "label", where)
    if isinstance(value, (list, dict)):
        raise InputError(f"{where}: the label is {_kind(value)}; must be a string or a number, the text's one class")
    label = composed(str(value)).strip()
    _refuse_empty(label, "label", where)
    if any(unicodedata.category(c) == "Cc" for c in label):
        raise InputError(f"{where}: the label {label[:40]!a} holds a control character; a label is one line")
    if label.lower() in _MISSING or label in _MISSING_EXACTLY:
        raise InputError(
            f"{where}: the label is {label!r}, which stands for a missing one; fill it in, remove the line, or call "
            "the class otherwise"
        )
    return label


def _value(row: _Cells, key: str, where: str) -> object:
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
