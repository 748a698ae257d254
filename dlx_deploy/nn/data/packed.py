"""Images inside of larger files: where each lies, its class and its group, in any format of shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dlx_deploy.errors import DataError
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.labels import composed
from dlx_deploy.runtime.tasks.tables import slice_key, slice_of

__all__ = ["MOST_BYTES", "Packed", "PackedImage", "label_text", "slices_of", "stamped"]

MOST_BYTES = 512 * 2**20
"""Of one encoded image."""


class PackedImage(NamedTuple):
    """An image in a shard: its ``name`` (the shard's, a slash, and its own), class ("": none) and group ("": none);
    ``slices``: what it has in the columns of ``data.slices``, where these were asked for."""

    name: str
    label: str
    group: str = ""
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Packed:
    """The images of one shard. ``read``: the number of one → its bytes. ``classes``: all of them, in the order of
    their numbers, where the file itself says it."""

    images: Sequence[PackedImage]
    read: Callable[[int], bytes]
    classes: tuple[str, ...] = ()


def label_text(value: object, where: str) -> str:
    """What a file says of a class, as a name.

    Raises:
        InputError: it is no name and no whole number, or has characters that cannot be seen.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as e:
            raise InputError(f"{where}: the label is not UTF-8") from e
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f"{where}: the label is a {type(value).__name__}; must be a name or a whole number")
    text = composed(str(value)).strip()
    if not text or not text.isprintable():
        raise InputError(f"{where}: the label is {text[:40]!a}; must be a name in one line, or a whole number")
    return text


def slices_of(said: Sequence[tuple[str, object]], columns: Sequence[str], where: str) -> tuple[str, ...]:
    """What a sample has in ``columns``, by all that is ``said`` of it: a column of a table, a key of a JSON.

    Raises:
        InputError: it has no such column, in any case, or two; nothing in it, or bytes that are no text.
    """
    row: dict[str, object] = {"": ", ".join(name for name, _ in said)}
    folded = [name.strip().lower() for name, _ in said]
    for name in columns:
        there = [i for i, other in enumerate(folded) if other == name.strip().lower()]
        if len(there) > 1:
            raise InputError(
                f"{where}: says {name!r} {len(there)} times ({', '.join(said[i][0] for i in there)}); keep one"
            )
        if there:
            row[slice_key(name)] = _text_of(said[there[0]][1], name, where)
    return tuple(slice_of(row, slice_key(name), name, where) for name in columns)


def _text_of(value: object, name: str, where: str) -> object:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as e:
        raise InputError(f"{where}: the column {name!r} is not UTF-8") from e


def stamped(path: Path) -> tuple[str, int, int]:
    """What tells whether the file at ``path`` is another than before.

    Raises:
        DataError: it cannot be looked at.
    """
    try:
        status = path.stat()
    except OSError as e:
        raise DataError(f"data.path: {path}: cannot be read ({e.strerror})") from e
    return str(path), status.st_size, status.st_mtime_ns
