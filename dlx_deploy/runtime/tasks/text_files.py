"""Labelled texts in CSV and JSON lines: every row is a text and its class, or the file is refused by line."""

from __future__ import annotations

import os
from typing import Iterator, List, NamedTuple, Sequence, Tuple

from ..errors import InputError
from ..files import PathLike
from .labels import alike, composed
from .tables import Columns, label_of, optional_of, read_rows, slice_key, slice_of, string_of, with_slices

__all__ = ["TextLine", "TextTable", "distinct", "read_lines", "read_table", "read_texts"]

_COLUMNS = Columns({"text": ("text",), "label": ("label",), "group": ("group",)}, ("text", "label"), "labelled texts")


class TextLine(NamedTuple):
    """A row, and the number of its ``line``; ``group`` is "" where there is no such column. ``slices``: what it has in
    the columns that are slices."""

    line: int
    text: str
    label: str
    group: str
    slices: Tuple[str, ...] = ()


class TextTable(NamedTuple):
    """The rows of a file, column by column."""

    texts: List[str]
    labels: List[str]
    groups: List[str]
    slices: Sequence[Tuple[str, ...]] = ()


def read_texts(path: PathLike) -> Tuple[List[str], List[str]]:
    """The texts and the labels of ``read_table``.

    Raises:
        InputError: as there.
    """
    table = read_table(path)
    return table.texts, table.labels


def read_table(path: PathLike, slices: Sequence[str] = ()) -> TextTable:
    """What is in a CSV file with columns ``text`` and ``label``, maybe ``group``, or in JSON lines with these keys; of
    other columns ``slices``.

    Other columns do not matter, nor does the case of these. Labels lose the spaces around them and are composed
    Unicode; a number in JSON is the label that its digits spell.

    Raises:
        InputError: no such file, another suffix or encoding, a line without a text or a label, with too many columns,
            or that repeats the header, a label that stands for a missing one, or two that look alike; a group that is
            empty; a slice that is missing.
    """
    name = os.fspath(path)
    rows = list(read_lines(path, slices))
    if not rows:
        raise InputError(f"{name}: holds no texts; give one a line, with its label")
    pair = alike([row.label for row in rows])
    if pair:
        raise InputError(f"{name}: the labels {pair[0]!a} and {pair[1]!a} differ in their writing only; make them one")
    return TextTable(
        [row.text for row in rows],
        [row.label for row in rows],
        [row.group for row in rows],
        [row.slices for row in rows],
    )


def read_lines(path: PathLike, slices: Sequence[str] = ()) -> Iterator[TextLine]:
    """The rows in ``path``, as ``read_table``.

    Raises:
        InputError: as ``read_table``, but for no texts and labels that look alike.
    """
    for line, row in read_rows(path, with_slices(_COLUMNS, slices)):
        where = f"{os.fspath(path)}, line {line}"
        text, label = string_of(row, "text", where), label_of(row, where, "text")
        group = optional_of(row, "group", where) or ""
        yield TextLine(line, text, label, group, tuple(slice_of(row, slice_key(s), s, where) for s in slices))


def distinct(text: str) -> str:
    """What two texts have in common that differ in spaces and Unicode's forms only: they count as one."""
    return " ".join(composed(text).split())
