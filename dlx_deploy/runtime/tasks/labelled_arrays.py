"""Labelled samples that are read already: a file of arrays, for a board that has no library to read them with.

An ``.npz``: ``input.NAME`` for each input of the network, ``target.NAME`` for each target, all with a row for each
sample, and ``names``, what the samples are called where they have names; ``column.NAME`` for what each has in a column
of their list. ``dlx-deploy verify --on`` writes one.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from typing import Dict, Mapping, Optional, Sequence

import numpy as np

from ..errors import InputError
from ..files import PathLike, open_file
from ..untyped import Array
from ..words import line, said
from .arrays import Arrays
from .task import Task

__all__ = ["ARRAYS", "Labelled", "names_of", "read_arrays", "read_labelled", "save_arrays", "write_arrays"]

ARRAYS = ".npz"
INPUT, TARGET, COLUMN, NAMES = "input.", "target.", "column.", "names"
NPY = ".npy"
MOST_SHOWN = 10  # members in a message: a foreign file may hold any
MOST_DEFLATED = 1032  # bytes that deflate makes of one
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""What comes of files that are damaged, encrypted, or made to fail."""
DATE = (1980, 1, 1, 0, 0, 0)  # the same arrays give the same bytes


@dataclass(frozen=True)
class Labelled:
    """``given``: samples for ``Inputs.read``. ``targets`` by name. ``names``: of all samples, if they have any.
    ``columns``: of those that were asked for what each sample has in them, where their list has them."""

    given: object
    targets: Arrays
    names: Sequence[str] = field(default=())
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read_labelled(task: Task, path: PathLike, columns: Sequence[str] = ()) -> Labelled:
    """What lies at ``path``: a file of arrays, or labelled data as the task reads them; of their list the ``columns``.

    Raises:
        InputError, BackendMissing: as ``read_arrays``, ``Task.load_labelled`` and ``Task.columns``.
    """
    if os.fspath(path).endswith(ARRAYS):
        labelled = read_arrays(path, task)
        return replace(labelled, columns={name: labelled.columns[name] for name in columns if name in labelled.columns})
    given, targets = task.load_labelled(path)
    found = task.columns(path, columns) if task.columns and columns else {}
    for name, values in found.items():
        if any(len(values) != len(target) for target in targets.values()):
            raise InputError(f"{os.fspath(path)}: its column {name!r} has {len(values)} rows, one is of each sample")
    return Labelled(given, targets, columns=found)


def names_of(task: Task, path: PathLike, labelled: Labelled) -> Sequence[str]:
    """What the samples are called; files are listed, none is read."""
    if labelled.names or task.names is None or os.fspath(path).endswith(ARRAYS):
        return labelled.names
    return task.names(path)


def read_arrays(path: PathLike, task: Task) -> Labelled:
    """The arrays of the file at ``path``, which holds the inputs and targets of ``task``, maybe ``names`` and columns.

    Raises:
        InputError: it cannot be read, misses one of them, has others, or not as many rows in each; inputs that are not
            as the model reads them.
    """
    name = os.fspath(path)
    tensors = {f"{INPUT}{tensor.name}": tensor for tensor in task.inputs.tensors}
    wanted = [*tensors, *(f"{TARGET}{one}" for one in task.outputs.targets)]
    arrays = _read_members(name, wanted)
    _refuse_rows(arrays, name)
    for key, tensor in tensors.items():
        if arrays[key].dtype != np.dtype(tensor.dtype) or not tensor.fits(arrays[key].shape):
            rule = f"{tensor.dtype}[{', '.join(map(str, ('N', *tensor.dims)))}]"
            raise InputError(f"{name}: {key} is {_shown(arrays[key])}; must be {rule}, as the model reads it")
    texts = {key: array for key, array in arrays.items() if key == NAMES or key.startswith(COLUMN)}
    for key, array in texts.items():
        if array.dtype.kind != "U" or array.ndim != 1:
            raise InputError(f"{name}: {line(key)} is {_shown(array)}; must be strings [N], or left out")
    given = {tensor.name: arrays[key] for key, tensor in tensors.items()}
    targets = {one: arrays[f"{TARGET}{one}"] for one in task.outputs.targets}
    columns = {key[len(COLUMN) :]: array.tolist() for key, array in texts.items() if key != NAMES}
    return Labelled(given, targets, texts[NAMES].tolist() if NAMES in texts else (), columns)


def _read_members(name: str, wanted: Sequence[str]) -> Dict[str, Array]:
    """All arrays of the file: those ``wanted``, and maybe ``names`` and columns."""
    try:
        with open_file(name) as file, zipfile.ZipFile(file) as archive:
            members = [(_array_name(info), info) for info in archive.infolist()]
            there = sorted(key for key, _ in members)
            needed = [key for key in there if not key.startswith(COLUMN)]
            if needed not in (sorted(wanted), sorted([*wanted, NAMES])) or len(set(there)) < len(there):
                seen = ", ".join(map(line, there[:MOST_SHOWN])) + (", …" if len(there) > MOST_SHOWN else "")
                raise InputError(
                    f"{name}: holds {seen or 'no arrays'}; must hold {', '.join(wanted)}, maybe {NAMES}, and no others"
                )
            most = MOST_DEFLATED * os.fstat(file.fileno()).st_size
            return {key: _read_member(archive, info, most) for key, info in members}
    except UNREADABLE as e:
        raise InputError(
            f"{name}: not a readable file of arrays ({type(e).__name__}: {said(e)}); write it again"
        ) from e


def _array_name(info: zipfile.ZipInfo) -> str:
    return info.filename[: -len(NPY)] if info.filename.endswith(NPY) else info.filename


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> Array:
    """The array of a member of at most so many bytes; nothing is allocated for what only its header claims.

    Raises:
        one of ``UNREADABLE``: it is no array, or damaged.
    """
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename!a} is compressed by method {info.compress_type}; must be stored or deflated")
    if info.file_size > most:
        raise ValueError(f"{info.filename!a} claims {info.file_size} bytes, more than its file can hold")
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in HEADERS:
            raise ValueError(f"{info.filename!a} is of the .npy version {version}; must be 1.0 or 2.0")
        shape, fortran, dtype = HEADERS[version](stream)
        size, held = dtype.itemsize, info.file_size - stream.tell()
        for n in shape:
            size *= n
        if dtype.hasobject or size != held or min(shape, default=0) < 0:
            raise ValueError(f"{info.filename!a} says {dtype}{list(shape)}, {size} bytes, and has {held}")
        data = stream.read()
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _refuse_rows(arrays: Arrays, name: str) -> None:
    rows = {key: len(array) if array.ndim else 0 for key, array in arrays.items()}
    if len(set(rows.values())) != 1 or not all(rows.values()):
        counts = ", ".join(f"{key} {count}" for key, count in sorted(rows.items()))
        raise InputError(f"{name}: its arrays have {counts} rows; must all have as many, one for each sample")


def _shown(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"


def write_arrays(
    path: PathLike,
    feeds: Arrays,
    targets: Arrays,
    names: Sequence[str] = (),
    columns: Optional[Mapping[str, Sequence[str]]] = None,
) -> None:
    """Write what ``read_arrays`` reads; the same arrays give the same bytes.

    Raises:
        OSError: it cannot be written.
    """
    members = {f"{INPUT}{name}": array for name, array in feeds.items()}
    members.update({f"{TARGET}{name}": array for name, array in targets.items()})
    if names:
        members[NAMES] = np.array(list(names))
    members.update({f"{COLUMN}{name}": np.array(list(values)) for name, values in (columns or {}).items()})
    save_arrays(path, members)


def save_arrays(path: PathLike, arrays: Arrays) -> None:
    """Write an ``.npz`` of ``arrays`` as they are; the same ones give the same bytes.

    Raises:
        OSError: it cannot be written.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", DATE), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
