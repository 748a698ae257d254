"""Files that each hold many images: which there are, and of which split. Standard library only: a warm build asks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.listing import ALL, CALIBRATION
from dlx_deploy.runtime.tasks.folders import SPLITS

__all__ = ["HUGGINGFACE", "SHARDS", "WEBDATASET", "find_shards", "shard_names"]

WEBDATASET, HUGGINGFACE = "webdataset", "huggingface"
SHARDS = {WEBDATASET: (".tar",), HUGGINGFACE: (".parquet", ".arrow")}
"""The values of ``data.kind`` for images in such files → their suffixes."""
_SPLIT = re.compile(
    "^(" + "|".join([*sorted(SPLITS, key=len, reverse=True), CALIBRATION]) + r")(?![a-z])", re.IGNORECASE
)
_COMPRESSED = (".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".tar.bz2")


def find_shards(path: Path, kind: str) -> dict[str, tuple[str, ...]]:
    """Split → the sorted names, relative to ``path``, of its shards; those of no split are ``ALL``.

    A split is a folder or what a file's name begins with: ``train-00000.tar``, ``test/0000.parquet``. A file at
    ``path`` is "" itself.

    Raises:
        DataError: there are none, only some are of a split, or they are compressed as a whole.
    """
    if path.is_file():
        _refuse_compressed([path.name], path)
        if not path.name.lower().endswith(SHARDS[kind]):
            raise DataError(f"data.path: {path}: data.kind {kind!r} needs {' or '.join(SHARDS[kind])} files")
        return {ALL: ("",)}
    if not path.is_dir():
        raise DataError(
            f"data.path: {path}: no such folder or file; data.kind {kind!r} needs {' or '.join(SHARDS[kind])} files"
        )
    names = _below(path)
    _refuse_compressed(names, path)
    shards: dict[str, list[str]] = {}
    for name in names:
        if name.lower().endswith(SHARDS[kind]):
            shards.setdefault(_split_of(name), []).append(name)
    if not shards:
        raise DataError(
            f"data.path: {path} holds no {' or '.join(SHARDS[kind])} files; data.kind {kind!r} has them as "
            f"train-00000{SHARDS[kind][0]}, or in folders of splits"
        )
    if ALL in shards and len(shards) > 1:
        raise DataError(
            f"data.path: {path}: {shards[ALL][0]!r} ({len(shards[ALL])} such) is of no split, and others are of "
            f"{', '.join(sorted(set(shards) - {ALL}))}; its name must begin with train, validation (or val), test or "
            "calibration"
        )
    return {split: tuple(of) for split, of in sorted(shards.items())}


def shard_names(kind: str, path: Path) -> list[str]:
    """The sorted names of all shards.

    Raises:
        DataError: as ``find_shards``.
    """
    return sorted(name for of in find_shards(path, kind).values() for name in of)


def _below(path: Path) -> list[str]:
    """The files in ``path`` and its folders, sorted; hidden ones and links to folders are passed over."""
    names: list[str] = []
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(folder).relative_to(path)
        names += [(inside / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(names)


def _split_of(name: str) -> str:
    """The split that a part of a name begins with: the file's own first, then its folders'."""
    for part in reversed(PurePosixPath(name).parts):
        if found := _SPLIT.match(part):
            word = found.group(1).lower()
            return SPLITS.get(word, word)
    return ALL


def _refuse_compressed(names: Sequence[str], path: Path) -> None:
    packed = [name for name in names if name.lower().endswith(_COMPRESSED)]
    if packed:
        raise DataError(
            f"data.path: {path}: {packed[0]!r} is a compressed tar; images in it can be read from the start alone: "
            "decompress it (gzip -d, xz -d), its images are compressed already"
        )
