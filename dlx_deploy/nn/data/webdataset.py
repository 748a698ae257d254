"""WebDataset's shards: tar files in which the files of one name, up to its first dot, are one sample.

Read with the standard library: a build needs each image by its place, in any order, which a stream does not give.
"""

from __future__ import annotations

import functools
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.packed import MOST_BYTES, Packed, PackedImage, label_text, slices_of, stamped
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.filenames import IMAGE_SUFFIXES

__all__ = ["open_tar"]

_LABELS = ("cls", "cls.txt", "label", "label.txt", "class")
_JSON_LABELS = ("label", "class", "cls", "class_name")
_BLOCK = 512
_MOST_SMALL = 2**20
"""Bytes of a label or a JSON beside an image."""


class _Member(NamedTuple):
    offset: int
    size: int


def open_tar(path: Path, shard: str, slices: tuple[str, ...] = ()) -> Packed:
    """The images in the tar file at ``path``, which is called ``shard``; they are in the order of their names.

    The class is in ``NAME.cls`` or in ``NAME.json`` (``label``, ``class``), "" where nothing says it; ``slices`` are
    keys of ``NAME.json``, or files ``NAME.KEY``.

    Raises:
        DataError: it cannot be read, holds no images, a sample has two, or what it says of a class or a slice is none.
    """
    return _indexed(shard, slices, *stamped(path))


@functools.lru_cache(maxsize=4096)
def _indexed(shard: str, slices: tuple[str, ...], path: str, size: int, changed: int) -> Packed:
    samples = _samples(path)
    images: list[PackedImage] = []
    members: list[_Member] = []
    for key in sorted(samples):
        parts = samples[key]
        pictures = [part for part in parts if f".{part}".endswith(IMAGE_SUFFIXES)]
        if len(pictures) > 1:
            raise DataError(
                f"data.path: {path}: {key!r} has {len(pictures)} images ({', '.join(sorted(pictures))}); keep one"
            )
        if pictures:
            where = f"{path}: {key}"
            try:
                table = _table(path, parts, where)
                label, group = _said(path, parts, table, where)
                own = slices_of(_fields(path, parts, table, slices), slices, where) if slices else ()
            except InputError as e:
                raise DataError(f"data.path: {e}") from e
            images.append(PackedImage(f"{shard}/{key}.{pictures[0]}".lstrip("/"), label, group, own))
            members.append(parts[pictures[0]])
    if not images:
        raise DataError(
            f"data.path: {path}: holds no images; a sample is NAME.jpg (or another of {', '.join(IMAGE_SUFFIXES)}) "
            "and NAME.cls"
        )
    return Packed(tuple(images), lambda number: _bytes(path, members[number], MOST_BYTES))


def _samples(path: str) -> dict[str, dict[str, _Member]]:
    """Name → what is behind its first dot, in lower case → where that lies."""
    samples: dict[str, dict[str, _Member]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, base = os.path.split(member.name)
                if not member.isfile() or member.sparse is not None or base.startswith("."):
                    continue
                _refuse_bytes(member.name)
                stem, _, suffix = base.partition(".")
                parts = samples.setdefault(f"{folder}/{stem}".lstrip("./"), {})
                if suffix.lower() in parts:
                    raise DataError(f"data.path: {path}: holds {member.name!a} twice; keep one")
                parts[suffix.lower()] = _Member(member.offset_data, member.size)
            end = tar.offset
        with open(path, "rb") as file:
            file.seek(end)
            if file.read(_BLOCK) != bytes(_BLOCK):  # tarfile takes whatever is no header for the end
                raise ValueError(f"no end mark at byte {end}: it is cut short or damaged")
    except (OSError, tarfile.TarError, ValueError, EOFError) as e:
        raise DataError(f"data.path: {path}: cannot be read as an uncompressed tar ({e}); make it again") from e
    return samples


def _refuse_bytes(name: str) -> None:
    """A tar holds names of any bytes; what is listed of them must be text."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as e:
        raise ValueError(f"the name {name!a} is not UTF-8") from e


def _table(path: str, parts: Mapping[str, _Member], where: str) -> Mapping[str, object]:
    """What the JSON of a sample says; nothing where there is none, or no table in it."""
    if "json" not in parts:
        return {}
    try:
        table = json.loads(_bytes(path, parts["json"], _MOST_SMALL))
    except (ValueError, RecursionError) as e:
        raise InputError(f"{where}.json: not JSON ({e})") from e
    return table if isinstance(table, dict) else {}


def _fields(
    path: str, parts: Mapping[str, _Member], table: Mapping[str, object], names: Sequence[str]
) -> list[tuple[str, object]]:
    """What is said of a sample by the keys of its JSON, and by files that are called as one of ``names``."""
    files = {name: name.strip().lower() for name in names}
    found = [
        (name, _bytes(path, parts[part], _MOST_SMALL))
        for name, file in files.items()
        for part in (file, f"{file}.txt")
        if part in parts
    ]
    return [*table.items(), *found]


def _said(path: str, parts: Mapping[str, _Member], table: Mapping[str, object], where: str) -> tuple[str, str]:
    """The class and the group of a sample, "" where nothing is said."""
    values = [table[key] for key in _JSON_LABELS if key in table]
    label = label_text(values[0], f"{where}.json") if values else ""
    group = label_text(table["group"], f"{where}.json") if "group" in table else ""
    named = [name for name in _LABELS if name in parts]
    if named:
        label = label_text(_bytes(path, parts[named[0]], _MOST_SMALL), f"{where}.{named[0]}")
    return label, group


def _bytes(path: str, member: _Member, most: int) -> bytes:
    """The bytes of a member.

    Raises:
        InputError: they are too many, or the file ends before.
    """
    if member.size > most:
        raise InputError(f"has {member.size} bytes; at most {most}")
    try:
        with open(path, "rb") as file:
            file.seek(member.offset)
            data = file.read(member.size)
    except OSError as e:
        raise InputError(f"cannot be read ({e.strerror})") from e
    if len(data) != member.size:
        raise InputError(f"is cut short: {len(data)} of {member.size} bytes are there")
    return data
