"""``left_out.json``: the files that a data set was prepared without, because they could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from dlx_deploy.runtime.files import write_atomically

__all__ = ["LeftOut", "Unread", "read_left_out", "write_left_out"]

_NAME = "left_out.json"
_SCHEMA = 1

Unread = Mapping[int, tuple[str, str]]
"""Row of a split → the file's name relative to the data's root, and why it cannot be read."""


class LeftOut(msgspec.Struct, frozen=True, order=True):
    """A file, the split that it would be in, and why it is not."""

    file: str
    split: str
    reason: str


class _File(msgspec.Struct, frozen=True):
    files: list[LeftOut]
    schema: int = _SCHEMA


def write_left_out(out: Path, split: str, unread: Unread) -> None:
    """Add what is ``unread`` of ``split`` to the list in the folder ``out``; the same bytes wherever the files lie."""
    added = [LeftOut(name, split, _without_path(reason, name)) for name, reason in unread.values()]
    listed = _File(sorted([*read_left_out(out), *added]))
    write_atomically(out / _NAME, msgspec.json.format(msgspec.json.encode(listed, order="sorted"), indent=1) + b"\n")


def read_left_out(out: Path) -> list[LeftOut]:
    """The list in the folder ``out``: empty where all files could be read."""
    path = out / _NAME
    return msgspec.json.decode(path.read_bytes(), type=_File).files if path.is_file() else []


def _without_path(reason: str, name: str) -> str:
    """What a message says behind the file's path, which differs from machine to machine."""
    _, found, rest = reason.partition(f"{name}: ")
    return rest if found else reason
