"""Hugging Face's data sets on disk: Parquet files, or the Arrow files that ``save_to_disk`` writes. Read by pyarrow."""

from __future__ import annotations

import bisect
import functools
import itertools
import json
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dlx_deploy.errors import DataError, EnvironmentMissing
from dlx_deploy.extras import install_command
from dlx_deploy.nn.data.listing import warn_once
from dlx_deploy.nn.data.packed import MOST_BYTES, Packed, PackedImage, label_text, slices_of, stamped
from dlx_deploy.runtime.errors import InputError

__all__ = ["open_table"]

_IMAGES = ("image", "img", "picture", "jpg", "png", "webp")
_LABELS = ("label", "labels", "class", "cls")
_GROUP = "group"
_METADATA = b"huggingface"
_HELD = 2
"""Row groups of images in memory at a time: several threads decode, one after the other row."""


def open_table(path: Path, shard: str, slices: tuple[str, ...] = ()) -> Packed:
    """The images in the Parquet or Arrow file at ``path``, which is called ``shard``, by their rows.

    The column of images is of the feature ``Image``, or called ``image``, ``img``, …; that of classes of
    ``ClassLabel``, whose names and order are taken, or called ``label``, …; a column ``group`` is the group. ``slices``
    are other columns; of a ``ClassLabel`` the names.

    Raises:
        DataError: it cannot be read, or has no such columns. EnvironmentMissing: pyarrow is not installed.
    """
    return _opened(shard, slices, *stamped(path))


@functools.lru_cache(maxsize=256)
def _opened(shard: str, slices: tuple[str, ...], path: str, size: int, changed: int) -> Packed:
    try:
        import pyarrow
    except ImportError as e:
        raise EnvironmentMissing(f"data.kind 'huggingface' needs pyarrow; {install_command('parquet')}") from e
    try:
        columns, groups = _parquet(path) if path.lower().endswith(".parquet") else _arrow(path)
        features = _features(columns)
        asked = {_GROUP, *(name.strip().lower() for name in slices)}
        image, label = _columns(columns.names, features, path, asked)
        classes = tuple(map(str, features.get(label, {}).get("names", ()))) if label else ()
        sliced = [name for name in columns.names if name.lower() in asked and name != image]
        said = list(dict.fromkeys([*(name for name in (label, _GROUP) if name in columns.names), *sliced]))
        rows = [row for group in groups for row in _rows(group, said)]
    except (pyarrow.ArrowException, OSError) as e:
        raise DataError(f"data.path: {path}: cannot be read ({e}); make it again") from e
    try:
        images = [_image(shard, number, row, label, classes) for number, row in enumerate(rows)]
        if slices:
            names = [(name, features.get(name, {}).get("names", ())) for name in columns.names]
            images = [
                image._replace(slices=slices_of(_named(names, rows[i], str(i)), slices, str(i)))
                for i, image in enumerate(images)
            ]
    except InputError as e:
        raise DataError(f"data.path: {path}, row {e}") from e
    if not images:
        raise DataError(f"data.path: {path}: holds no rows")
    return Packed(tuple(images), _Reader(image, groups), classes)


def _named(
    names: Sequence[tuple[str, Sequence[str]]], row: Mapping[str, object], where: str
) -> list[tuple[str, object]]:
    """What is said of a ``row``, classes by their ``names``; columns that were not read are there, with nothing.

    Raises:
        InputError: the number of a class that there is not.
    """

    def text(name: str, known: Sequence[str]) -> object:
        value = row.get(name)
        if not known or type(value) is not int:
            return value
        if not 0 <= value < len(known):
            raise InputError(
                f"{where}: the column {name!r} is {value}, and its classes are 0 to {len(known) - 1}; a sample that "
                "may be judged is of a slice: fill it in"
            )
        return known[value]

    return [(name, text(name, known)) for name, known in names]


class Group(NamedTuple):
    """A row group: how many ``rows``; ``load`` gives pyarrow's table of the columns of these names."""

    rows: int
    load: Callable[[Sequence[str]], Any]


def _rows(group: Group, columns: Sequence[str]) -> Sequence[Mapping[str, object]]:
    """Small columns of all rows."""
    if not columns:
        return [{}] * group.rows
    rows: Sequence[Mapping[str, object]] = group.load(columns).to_pylist()
    return rows


class _Reader:
    """Reads images by their rows, a row group at a time."""

    def __init__(self, column: str, groups: Sequence[Group]) -> None:
        self._starts = [0, *itertools.accumulate(group.rows for group in groups)]
        self._load = functools.lru_cache(maxsize=_HELD)(lambda number: groups[number].load([column]).column(column))

    def __call__(self, number: int) -> bytes:
        """The bytes of the image in row ``number``.

        Raises:
            InputError: there are none, or too many.
        """
        group = bisect.bisect_right(self._starts, number) - 1
        value = self._load(group)[number - self._starts[group]].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            where = value.get("path") if isinstance(value, dict) else None
            raise InputError(f"its bytes are not in the file{f' but at {where!a}' if where else ''}; embed them")
        if len(data) > MOST_BYTES:
            raise InputError(f"has {len(data)} bytes; at most {MOST_BYTES}")
        return data


def _parquet(path: str) -> tuple[Any, list[Group]]:
    from pyarrow import parquet

    file = parquet.ParquetFile(path)

    def group(number: int) -> Group:
        rows: int = file.metadata.row_group(number).num_rows
        return Group(rows, lambda names: parquet.ParquetFile(path).read_row_group(number, columns=list(names)))

    return file.schema_arrow, [group(number) for number in range(file.num_row_groups)]


def _arrow(path: str) -> tuple[Any, list[Group]]:
    import pyarrow

    source = pyarrow.memory_map(path)
    try:
        table = pyarrow.ipc.open_stream(source).read_all()
    except pyarrow.ArrowInvalid:
        table = pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()
    return table.schema, [Group(table.num_rows, lambda names: table.select(list(names)))]


def _features(schema: Any) -> Mapping[str, Mapping[str, Any]]:
    """Column → what Hugging Face's library says of it."""
    try:
        said = json.loads((schema.metadata or {}).get(_METADATA, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {name: value for name, value in said.items() if isinstance(value, dict)} if isinstance(said, dict) else {}


def _columns(
    names: Sequence[str], features: Mapping[str, Mapping[str, Any]], path: str, asked: Container[str]
) -> tuple[str, str]:
    """The columns of images and of classes ("": there is none): of those called so one of the type; else images are one
    of the type before one called so, and classes one called so before one of the type. One that is ``asked`` for as
    something else (the group, a slice) is neither but by its name."""

    def one(feature: str, usual: Sequence[str], noun: str) -> str:
        called = [name for name in names if name.lower() in usual]
        typed = [name for name in names if features.get(name, {}).get("_type") == feature]
        others = [name for name in typed if name not in called and name.lower() not in asked]
        both = [name for name in typed if name in called]
        there = both or (others or called if feature == "Image" else called or others)
        if others and there == called and not both:
            warn_once(
                f"{path}: {noun} are those of the column {there[0]!r}, by its name, and not of {others[0]!r}, a "
                f"{feature}; to have those, rename {there[0]!r}"
            )
        if len(there) > 1:
            raise DataError(f"data.path: {path}: has {len(there)} columns of {noun} ({', '.join(there)}); keep one")
        return there[0] if there else ""

    image, label = one("Image", _IMAGES, "images"), one("ClassLabel", _LABELS, "classes")
    if not image:
        raise DataError(
            f"data.path: {path}: has no column of images, only {', '.join(names)}; call it {_IMAGES[0]!r}, of bytes or "
            "of Hugging Face's Image"
        )
    return image, label


def _image(shard: str, number: int, row: Mapping[str, object], label: str, classes: Sequence[str]) -> PackedImage:
    name = f"{shard}/{number}".lstrip("/")
    value = row.get(label) if label else None
    if isinstance(value, int) and classes:
        # -1 is what the library writes where a label is held back, as in some test splits.
        value = classes[value] if 0 <= value < len(classes) else None
    group = row.get(_GROUP)
    return PackedImage(
        name,
        "" if value is None else label_text(value, str(number)),
        "" if group is None else label_text(group, str(number)),
    )
