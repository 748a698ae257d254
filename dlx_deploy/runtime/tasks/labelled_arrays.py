"""Labelled samples that are read already: a file of arrays, for a board that has no library to read them with.

An ``.npz``: ``input.NAME`` for each input of the network, ``target.NAME`` for each target, all with a row for each
sample, and ``names``, what the samples are called where they have names. ``dlx-deploy verify --on`` writes one.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass, field
from typing import Dict, Sequence

import numpy as np

from ..errors import InputError
from ..files import PathLike
from ..untyped import Array
from ..words import said
from .arrays import Arrays
from .task import Task

__all__ = ["ARRAYS", "Labelled", "names_of", "read_arrays", "read_labelled", "save_arrays", "write_arrays"]

ARRAYS = ".npz"
INPUT, TARGET, NAMES = "input.", "target.", "names"
DATE = (1980, 1, 1, 0, 0, 0)  # the same arrays give the same bytes


@dataclass(frozen=True)
class Labelled:
    """``given``: samples for ``Inputs.read``. ``targets`` by name. ``names``: of all samples, if they have any."""

    given: object
    targets: Arrays
    names: Sequence[str] = field(default=())


def read_labelled(task: Task, path: PathLike) -> Labelled:
    """What lies at ``path``: a file of arrays, or labelled data as the task reads them.

    Raises:
        InputError, BackendMissing: as ``read_arrays`` and ``Task.load_labelled``.
    """
    if os.fspath(path).endswith(ARRAYS):
        return read_arrays(path, [tensor.name for tensor in task.inputs.tensors])
    given, targets = task.load_labelled(path)
    return Labelled(given, targets)


def names_of(task: Task, path: PathLike, labelled: Labelled) -> Sequence[str]:
    """What the samples are called; files are listed, none is read."""
    if labelled.names or task.names is None or os.fspath(path).endswith(ARRAYS):
        return labelled.names
    return task.names(path)


def read_arrays(path: PathLike, inputs: Sequence[str]) -> Labelled:
    """The arrays of the file at ``path``, which holds those of ``inputs`` and no others.

    Raises:
        InputError: it cannot be read, misses one of them, has none of targets, or not as many rows in each.
    """
    name = os.fspath(path)
    try:
        with np.load(name, allow_pickle=False) as file:
            arrays: Dict[str, Array] = dict(file)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as e:
        raise InputError(
            f"{name}: not a readable file of arrays ({type(e).__name__}: {said(e)}); write it again"
        ) from e
    given = {key[len(INPUT) :]: array for key, array in arrays.items() if key.startswith(INPUT)}
    targets = {key[len(TARGET) :]: array for key, array in arrays.items() if key.startswith(TARGET)}
    if sorted(given) != sorted(inputs) or not targets:
        raise InputError(
            f"{name}: holds {', '.join(sorted(arrays)) or 'no arrays'}; must hold "
            f"{', '.join(INPUT + one for one in inputs)} and the targets, {TARGET}NAME"
        )
    rows = {key: len(array) if array.ndim else 0 for key, array in arrays.items()}
    if len(set(rows.values())) != 1 or not all(rows.values()):
        counts = ", ".join(f"{key} {count}" for key, count in sorted(rows.items()))
        raise InputError(f"{name}: its arrays have {counts} rows; must all have as many, one for each sample")
    return Labelled(given, targets, [str(one) for one in arrays.get(NAMES, np.zeros(0, str))])


def write_arrays(path: PathLike, feeds: Arrays, targets: Arrays, names: Sequence[str] = ()) -> None:
    """Write what ``read_arrays`` reads; the same arrays give the same bytes.

    Raises:
        OSError: it cannot be written.
    """
    members = {f"{INPUT}{name}": array for name, array in feeds.items()}
    members.update({f"{TARGET}{name}": array for name, array in targets.items()})
    if names:
        members[NAMES] = np.array(list(names))
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
