"""A folder written whole or not at all, and replaced only if it is as it was written."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.files import TooLarge, read_file, reason
from dlx_deploy.runtime.package.archive import to_json
from dlx_deploy.runtime.strict_json import from_json
from dlx_deploy.runtime.words import shortened

__all__ = ["INDEX", "write_folder"]

INDEX = "bundle.json"
"""What was written: ``schema``, of each other file its SHA-256, and ``SEAL``, of what it says itself."""
SEAL = "sha256"
SCHEMA = 1
_MOST = 2**32
"""Bytes of a file that is looked at before it is replaced; a bundle has none as large."""


def write_folder(folder: Path, files: Mapping[str, bytes], made: Mapping[str, Any]) -> None:
    """Make ``files`` (relative path → bytes) and ``INDEX``, with what ``made`` says, the contents of ``folder``.

    An older bundle is there until the new one takes its place, by two renames.

    Raises:
        ConfigError: there is something in ``folder`` that was not written here, or it cannot be written.
    """
    entries = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    said = {"schema": SCHEMA, **made, "files": entries}
    index = to_json({**said, SEAL: _seal(said)})
    folder = Path(os.path.abspath(folder))
    aside, old = (folder.parent / f".{folder.name}.{os.getpid()}{end}" for end in ("", ".old"))
    try:
        there = _replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write(aside, {**files, INDEX: index})
        if there:
            os.rename(folder, old)
        try:
            os.rename(aside, folder)
        except BaseException:
            if there:
                os.rename(old, folder)
            raise
    except OSError as e:
        raise ConfigError(f"{folder}: cannot be written ({reason(e)}); name another folder with --out") from e
    finally:  # Ctrl-C too must leave no litter
        shutil.rmtree(aside, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())


def _replaceable(folder: Path) -> bool:
    """Whether there is a folder that may be replaced; nothing, if it is not there.

    Raises:
        ConfigError: it holds something else than a bundle as it was written.
    """
    if not os.path.lexists(folder):
        return False
    if folder.is_symlink() or not folder.is_dir():
        raise ConfigError(f"{folder}: is no folder; name another with --out")
    there = sorted(_names(folder))
    if not there:
        return True
    wanted = _written(folder)
    if wanted is None:
        if INDEX in there:
            raise _foreign(folder, f"{INDEX} is another program's, or was changed since it was written")
        raise _foreign(folder, f"{shortened(there[0])} is not of a bundle")
    for name in there:
        if name != INDEX and name not in wanted:
            raise _foreign(folder, f"{shortened(name)} is not of a bundle")
    for name, digest in wanted.items():
        if name in there and _digest(folder / name) != digest:
            raise _foreign(folder, f"{shortened(name)} was changed since it was written")
    return True


def _names(folder: Path) -> Iterator[str]:
    """Every entry below that is no folder with something in it, by its relative path."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir()):
            yield path.relative_to(folder).as_posix()


def _written(folder: Path) -> dict[str, str] | None:
    """The digests that ``INDEX`` has; ``None``, if there is none as it is written here."""
    try:
        data = read_file(folder / INDEX, 2**20)
        index = from_json(data)
        if not isinstance(index, dict) or index.get("schema") != SCHEMA:
            return None
        said = {key: value for key, value in index.items() if key != SEAL}
        if data != to_json({**said, SEAL: _seal(said)}):
            return None
    except (OSError, ValueError, TooLarge):
        return None
    files = said.get("files")
    return {str(name): str(digest) for name, digest in files.items()} if isinstance(files, dict) else None


def _seal(index: Mapping[str, Any]) -> str:
    """The SHA-256 of what else ``INDEX`` says."""
    return hashlib.sha256(to_json(index)).hexdigest()


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_file(path, _MOST)).hexdigest()
    except (OSError, TooLarge):
        return ""


def _foreign(folder: Path, why: str) -> ConfigError:
    return ConfigError(f"{folder}: {why}, and would be lost; name another folder with --out, or remove this one")
