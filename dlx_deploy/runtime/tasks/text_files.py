"""Labelled texts in CSV and JSON lines: every row is a text and its class, or the file is refused by line."""

from __future__ import annotations

import os
from typing import Iterator, List, Tuple

from ..errors import InputError
from ..files import PathLike
from .labels import alike, composed
from .tables import Columns, label_of, read_rows, string_of

__all__ = ["distinct", "read_lines", "read_texts"]

_COLUMNS = Columns({"text": ("text",), "label": ("label",)}, ("text", "label"), "labelled texts")


def read_texts(path: PathLike) -> Tuple[List[str], List[str]]:
    """The texts and the labels in a CSV file with columns ``text`` and ``label``, or in JSON lines with these keys.

    Other columns do not matter, nor does the case of these two. Labels lose the spaces around them and are composed
    Unicode; a number in JSON is the label that its digits spell.

    Raises:
        InputError: no such file, another suffix or encoding, a line without a text or a label, with too many columns,
            or that repeats the header, a label that stands for a missing one, or two that look alike.
    """
    name = os.fspath(path)
    texts: List[str] = []
    labels: List[str] = []
    for _, text, label in read_lines(path):
        texts.append(text)
        labels.append(label)
    if not texts:
        raise InputError(f"{name}: holds no texts; give one a line, with its label")
    pair = alike(labels)
    if pair:
        raise InputError(f"{name}: the labels {pair[0]!a} and {pair[1]!a} differ in their writing only; make them one")
    return texts, labels


def read_lines(path: PathLike) -> Iterator[Tuple[int, str, str]]:
    """The number of its line, the text and the label of each row in ``path``, as ``read_texts``.

    Raises:
        InputError: as ``read_texts``, but for no texts and labels that look alike.
    """
    for line, row in read_rows(path, _COLUMNS):
        where = f"{os.fspath(path)}, line {line}"
        yield line, string_of(row, "text", where), label_of(row, where, "text")


def distinct(text: str) -> str:
    """What two texts have in common that differ in spaces and Unicode's forms only: they count as one."""
    return " ".join(composed(text).split())
