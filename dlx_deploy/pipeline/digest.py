"""SHA-256 digests of files and folders, with a cache so that unchanged files are not read again."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from dlx_deploy.runtime.files import write_atomically

__all__ = ["DigestCache", "FileDigest", "canonical_json", "combine"]

_SETTLED_NS = 100_000_000
"""A file younger than this is hashed but not remembered: a second write could leave the same time stamp."""

_Stamp = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode


class FileDigest(msgspec.Struct, frozen=True):
    """One file below an input or output: its SHA-256 (hex) and size."""

    sha256: str
    size_bytes: int


def canonical_json(value: object) -> bytes:
    """``value`` as JSON with one spelling: sorted keys, UTF-8, one-space indent, newline at the end."""
    text = msgspec.json.encode(value, order="sorted")
    return msgspec.json.format(text, indent=1) + b"\n"


def combine(files: dict[str, FileDigest]) -> str:
    """The digest of a file (named ``""``) or of a folder (relative names → digests), as hex."""
    if set(files) == {""}:
        return files[""].sha256
    listing = {name: item.sha256 for name, item in files.items()}
    return hashlib.sha256(canonical_json(listing)).hexdigest()


class DigestCache:
    """Digests of files, remembered by path and (size, mtime, ctime, inode) in one JSON file.

    Whoever edits a file and then restores all four stamps is not seen; ``deep=True`` reads every byte again.
    """

    def __init__(self, path: Path | None = None, deep: bool = False) -> None:
        self._path = path
        self._deep = deep
        self._known: dict[str, tuple[_Stamp, str]] = self._load()
        self._changed = False

    def of(self, path: Path, names: Sequence[str] | None = None) -> dict[str, FileDigest]:
        """The files of ``path``: ``{"": …}`` for a file, relative names for a folder (all, or only ``names``).

        Raises:
            FileNotFoundError: ``path`` does not exist.
        """
        if names is not None:
            return {name: self._file(os.path.join(path.absolute(), name)) for name in names}
        if path.is_file():
            return {"": self._file(str(path.absolute()))}
        if not path.is_dir():
            raise FileNotFoundError(2, "no such file or folder", str(path))
        root = str(path.absolute())
        return {os.path.relpath(f, root).replace(os.sep, "/"): self._file(f) for f in sorted(_walk(root))}

    def save(self) -> None:
        """Write the cache back; losing it costs time only, so a read-only folder is no error."""
        if self._path is None or not self._changed:
            return
        try:
            write_atomically(self._path, msgspec.json.encode(self._known))
        except OSError:
            return
        self._changed = False

    def _file(self, path: str) -> FileDigest:
        status = os.stat(path)
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        known = self._known.get(path)
        if known is not None and known[0] == stamp and not self._deep:
            return FileDigest(known[1], status.st_size)
        digest = _sha256(path)
        if time.time_ns() - max(stamp[1], stamp[2]) > _SETTLED_NS:
            self._known[path] = (stamp, digest)
            self._changed = True
        return FileDigest(digest, status.st_size)

    def _load(self) -> dict[str, tuple[_Stamp, str]]:
        if self._path is None:
            return {}
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, tuple[_Stamp, str]])
        except (OSError, msgspec.DecodeError):
            return {}  # a damaged cache is an empty one


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _walk(root: str) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (os.path.join(folder, f) for f in files if not f.startswith("."))
