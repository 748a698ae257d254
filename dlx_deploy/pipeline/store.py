"""The content store: ``.dlx/store/<key>/{record.json, outputs…}``.

A step is done if and only if its record is there. Work happens in ``.work-*`` beside it and becomes visible by one
rename. Failures are never stored. Every look-up checks the digests of what it hands out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dlx_deploy.errors import StoreError
from dlx_deploy.pipeline.digest import DigestCache, FileDigest, canonical_json, combine, write_atomically
from dlx_deploy.pipeline.key import KeyDocument, key_of
from dlx_deploy.pipeline.stage import Metrics

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows)
    fcntl = None  # type: ignore[assignment]

__all__ = ["Corrupt", "Record", "Store", "StoredOutput"]

SCHEMA = 1
_RECORD = "record.json"


class StoredOutput(msgspec.Struct, frozen=True):
    """One output of a step: the digest that goes downstream, its size and its files."""

    digest: str
    size_bytes: int
    files: dict[str, FileDigest]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What ``record.json`` holds. ``target_name``: for which it was first built. ``started`` is ISO 8601, UTC."""

    schema: int
    step: str
    target_name: str
    key: str
    document: KeyDocument
    outputs: dict[str, StoredOutput]
    metrics: Metrics
    started: str
    seconds: float


@dataclass(frozen=True)
class Corrupt:
    """A record whose outputs are not what it says; ``record`` is None where the record itself cannot be read."""

    what: str
    record: Record | None


class Store:
    """A folder of finished steps, safe for several processes at once."""

    def __init__(self, root: Path, deep: bool = False) -> None:
        self.root = root
        self._entries = root / "store"
        self._digests = DigestCache(root / "digests.json", deep=deep)

    def digest_of(self, path: Path, names: Sequence[str] | None = None) -> str:
        """The digest of a user's file or folder (of all its files, or only of ``names``), as hex."""
        return combine(self._digests.of(path, names))

    def output_path(self, key: str, name: str) -> Path:
        """Where the entry ``key`` keeps its output ``name``."""
        return self._entries / key / name

    def checkpoints(self, key: str) -> Path:
        """The folder in which a step that can resume keeps its checkpoints."""
        return self.root / "checkpoints" / key

    def find(self, key: str) -> Record | Corrupt | None:
        """The finished step ``key`` with every digest checked, what is wrong with it, or None."""
        folder = self._entries / key
        try:
            record = msgspec.json.decode((folder / _RECORD).read_bytes(), type=Record)
        except FileNotFoundError:
            return Corrupt("record.json is missing", None) if folder.exists() else None
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            return Corrupt(f"record.json cannot be read: {e}", None)
        except OSError as e:
            raise _store_error(e, folder) from e
        if record.schema > SCHEMA:
            raise StoreError(
                f"{folder / _RECORD}: schema {record.schema}, and this dlx-deploy reads up to {SCHEMA}; "
                f"use a newer dlx-deploy or another --store"
            )
        if record.key != key or key_of(record.document) != key:
            return Corrupt("record.json does not belong to its key", None)
        wrong = self._first_mismatch(folder, record)
        return Corrupt(wrong, record) if wrong else record

    def records(self) -> list[Record]:
        """Every readable record, the newest first; digests of outputs are not checked."""
        found = []
        with contextlib.suppress(OSError):
            for entry in sorted(self._entries.iterdir()):
                with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
                    found.append(msgspec.json.decode((entry / _RECORD).read_bytes(), type=Record))
        return sorted(found, key=lambda r: r.started, reverse=True)

    def write(self, record: Callable[[Path], Record], key: str) -> Record:
        """Let ``record`` fill an empty folder and describe it, then make the entry visible by one rename.

        Raises:
            StoreError: the disk is full or the store cannot be written; whatever ``record`` raised goes through.
        """
        try:
            self._entries.mkdir(parents=True, exist_ok=True)
            self._remove_stale_work(key)
            work = Path(tempfile.mkdtemp(prefix=f".work-{key}-", dir=self._entries))
        except OSError as e:
            raise _store_error(e, self._entries) from e
        try:
            done = record(work)
            (work / _RECORD).write_bytes(canonical_json(done))
            _settle(work)
            final = self._entries / key
            if final.exists():  # only a corrupt entry can be here: the caller holds the lock and looked
                self._discard(final)
            work.rename(final)
            _fsync(self._entries)
        except OSError as e:
            if e.errno in _DISK_ERRORS:
                raise _store_error(e, work) from e
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(self.checkpoints(key), ignore_errors=True)
        return done

    def outputs_in(self, folder: Path, names: list[str]) -> dict[str, StoredOutput]:
        """The outputs a step just wrote below ``folder``.

        Raises:
            FileNotFoundError: a declared output is missing.
        """
        outputs = {}
        for name in names:
            files = self._digests.of(folder / name)
            outputs[name] = StoredOutput(combine(files), sum(f.size_bytes for f in files.values()), files)
        return outputs

    @contextlib.contextmanager
    def lock(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the step's lock; ``waiting`` is called once if another process has it. A dead holder frees it."""
        path = self.root / "locks" / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as e:
            raise _store_error(e, path) from e
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    waiting()
                    fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def remove(self, key: str) -> int:
        """Delete what the store has of ``key``, once no other process works on it; gives back the bytes freed."""
        with self.lock(key, lambda: None):
            size = self.size_of(key)
            for folder in self._folders_of(key):
                self._discard(folder)
        return size

    def size_of(self, key: str) -> int:
        """The bytes that the entry, the checkpoints and any left-over work of ``key`` take up."""
        return sum(f.lstat().st_size for folder in self._folders_of(key) for f in folder.rglob("*") if f.is_file())

    def keys(self) -> set[str]:
        """Every key of which anything is left: a finished entry, checkpoints, or the work of a dead process."""
        found = set()
        for folder in (self._entries, self.root / "checkpoints"):
            with contextlib.suppress(OSError):
                found |= {match.group(1) for e in folder.iterdir() if (match := _KEY_IN_NAME.match(e.name))}
        return found

    def save_digests(self) -> None:
        """Remember the digests computed so far, to make the next start fast."""
        if self._entries.is_dir():
            self._digests.save()

    def write_build(self, name: str, manifest: bytes) -> Path:
        """Replace the manifest of one build, atomically; the path it has."""
        path = self.root / "builds" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, manifest)
        except OSError as e:
            raise _store_error(e, path) from e
        return path

    def _folders_of(self, key: str) -> list[Path]:
        return [self._entries / key, self.checkpoints(key), *self._entries.glob(f".work-{key}-*")]

    def _first_mismatch(self, folder: Path, record: Record) -> str:
        for name, expected in record.outputs.items():
            try:
                files = self._digests.of(folder / name)
            except OSError as e:
                return f"{name}: {e.strerror}"
            for file in sorted(expected.files.keys() | files.keys()):
                if expected.files.get(file) != files.get(file):
                    return f"{name}{'/' + file if file else ''} is not the file that was stored (SHA-256 differs)"
        return ""

    def _remove_stale_work(self, key: str) -> None:
        for left in self._entries.glob(f".work-{key}-*"):  # its owner is dead: we hold the lock
            shutil.rmtree(left, ignore_errors=True)

    def _discard(self, folder: Path) -> None:
        if folder.exists():
            trash = Path(tempfile.mkdtemp(prefix=".trash-", dir=self._entries))
            folder.rename(trash / "entry")
            shutil.rmtree(trash, ignore_errors=True)


_KEY_IN_NAME = re.compile(r"(?:\.work-)?([0-9a-f]{64})(?:-|$)")
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO}


def _store_error(e: OSError, path: Path) -> StoreError:
    remedy = {
        errno.ENOSPC: "free some space (dlx-deploy gc helps) and build again: finished stages are kept",
        errno.EDQUOT: "free some of your quota and build again: finished stages are kept",
        errno.EROFS: "the file system is read-only; name another folder with --store",
        errno.EACCES: "make it writable, or name another folder with --store",
    }.get(e.errno or 0, "check the disk, or name another folder with --store")
    return StoreError(f"store {path}: {e.strerror}; {remedy}")


def _settle(folder: Path) -> None:
    """Flush every file to the disk and take away the right to write it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _fsync(path)
            path.chmod(0o444)
        else:
            _fsync(path)
    _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
