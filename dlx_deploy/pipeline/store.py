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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from dlx_deploy.errors import StoreError
from dlx_deploy.pipeline.digest import DigestCache, canonical_json, combine
from dlx_deploy.pipeline.key import key_of
from dlx_deploy.pipeline.locks import locked, locked_at_once, store_error
from dlx_deploy.pipeline.record import SCHEMA, Corrupt, Record, StoredOutput
from dlx_deploy.runtime.files import write_atomically
from dlx_deploy.runtime.schemas import newer_schema

__all__ = ["Store"]

_RECORD = "record.json"


class Store:
    """A folder of finished steps, safe for several processes at once."""

    def __init__(self, root: Path, deep: bool = False) -> None:
        self.root = root
        self._entries = root / "store"
        self._digests = DigestCache(root / "digests.json", deep=deep)
        self._listed: list[Record] | None = None

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
            raise store_error(e, folder) from e
        refusal = newer_schema(record.schema, SCHEMA, "use a newer dlx-deploy or another --store")
        if refusal:
            raise StoreError(f"{folder / _RECORD}: {refusal}")
        if record.key != key or key_of(record.document) != key:
            return Corrupt("record.json does not belong to its key", None)
        if record.sha256 != record.digest():
            return Corrupt("record.json was changed after it was written (its own SHA-256 differs)", None)
        wrong = self._first_mismatch(folder, record)
        return Corrupt(wrong, record) if wrong else record

    def records(self) -> list[Record]:
        """Every readable record, the newest first; digests of outputs are not checked.

        Read once and remembered until this store is written to: each step that is not found asks for them.
        """
        if self._listed is not None:
            return self._listed
        records = []
        with contextlib.suppress(OSError):
            for entry in sorted(self._entries.iterdir()):
                with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
                    records.append(msgspec.json.decode((entry / _RECORD).read_bytes(), type=Record))
        self._listed = sorted(records, key=lambda r: r.started, reverse=True)
        return self._listed

    def write(self, record: Callable[[Path], Record], key: str) -> Record:
        """Let ``record`` fill an empty folder and describe it, then make the entry visible by one rename.

        Raises:
            StoreError: the disk is full or the store cannot be written; whatever ``record`` raised goes through.
        """
        with self.working(key) as work:
            return self.keep(record(work), work)

    @contextlib.contextmanager
    def working(self, key: str) -> Iterator[Path]:
        """An empty folder for the step ``key``, which goes away with all that ``keep`` was not asked to keep.

        The caller holds the step's lock.

        Raises:
            StoreError: the disk is full or the store cannot be written; whatever else is raised inside goes through.
        """
        try:
            self._entries.mkdir(parents=True, exist_ok=True)
            self._remove_stale_work(key)
            work = Path(tempfile.mkdtemp(prefix=f".work-{key}-", dir=self._entries))
        except OSError as e:
            raise store_error(e, self._entries) from e
        try:
            yield work
        except OSError as e:
            if e.errno in _DISK_ERRORS:
                raise store_error(e, work) from e
            raise
        finally:
            self._listed = None
            shutil.rmtree(work, ignore_errors=True)

    def keep(self, record: Record, work: Path) -> Record:
        """Make the folder ``work`` the entry of what ``record`` describes, by one rename; the record as it is kept."""
        done = msgspec.structs.replace(record, sha256=record.digest())
        (work / _RECORD).write_bytes(canonical_json(done))
        _settle(work)
        final = self._entries / record.key
        if final.exists():  # damaged, or not wanted as it is: the caller holds the lock and looked
            self._discard(final)
        work.rename(final)
        _fsync(self._entries)
        shutil.rmtree(self.checkpoints(record.key), ignore_errors=True)
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
        with locked(self.root / "locks" / key, waiting):
            yield

    def lock_at_once(self, key: str) -> contextlib.ExitStack | None:
        """The same, held from now on; ``None`` if another process has it."""
        return locked_at_once(self.root / "locks" / key)

    def contents(self) -> dict[str, list[Path]]:
        """Every key of which anything is left → where: a finished entry, checkpoints, the work of a dead process."""
        folders: dict[str, list[Path]] = {}
        for folder in (self._entries, self.root / "checkpoints"):
            with contextlib.suppress(OSError):
                for entry in sorted(folder.iterdir()):
                    if match := _KEY_IN_NAME.match(entry.name):
                        folders.setdefault(match.group(1), []).append(entry)
        return folders

    def keys(self) -> set[str]:
        """Every key of which anything is left."""
        return set(self.contents())

    def remove(self, key: str) -> None:
        """Delete what the store has of ``key``, once no other process works on it."""
        self.remove_all({key: self.contents().get(key, [])})

    def remove_all(self, contents: Mapping[str, Sequence[Path]]) -> None:
        """Delete these entries (some of ``contents()``), each once no other process works on it."""
        self._listed = None
        if not contents:
            return
        trash = Path(tempfile.mkdtemp(prefix=_TRASH, dir=self.root))
        try:
            for number, (key, folders) in enumerate(contents.items()):
                lock = self.root / "locks" / key
                # Whoever works on a key has made its lock first: without one there is nobody to wait for.
                with self.lock(key, lambda: None) if lock.exists() else contextlib.nullcontext():
                    for part, folder in enumerate(folders):
                        with contextlib.suppress(FileNotFoundError):
                            os.rename(folder, trash / f"{number}-{part}")  # gone at once, whole
                    lock.unlink(missing_ok=True)
        except OSError as e:
            raise store_error(e, self.root) from e
        finally:
            for left in self.root.glob(f"{_TRASH}*"):  # that of a killed process too
                _delete(left)

    def save_digests(self) -> None:
        """Remember the digests computed so far, to make the next start fast."""
        if self._entries.is_dir():
            self._digests.save()

    def write_build(self, name: str, manifest: bytes) -> Path:
        """Replace the manifest of one build, atomically; the path it has."""
        path = self.path_of_build(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, manifest)
        except OSError as e:
            raise store_error(e, path) from e
        return path

    def path_of_build(self, name: str) -> Path:
        """Where the manifest of that name is written."""
        return self.root / "builds" / name

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
            trash = Path(tempfile.mkdtemp(prefix=_TRASH, dir=self.root))
            folder.rename(trash / "entry")
            shutil.rmtree(trash, ignore_errors=True)


_TRASH = ".trash-"
_KEY_IN_NAME = re.compile(r"(?:\.work-)?([0-9a-f]{64})(?:-|$)")
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO}


def _settle(folder: Path) -> None:
    """Flush every file to the disk and take away the right to write it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _fsync(path)
            path.chmod(0o444)
        else:
            _fsync(path)
    _fsync(folder)


def _delete(folder: Path | str) -> None:
    """Delete all there is, as far as possible; several times as fast as ``shutil.rmtree`` on thousands of folders."""
    with contextlib.suppress(OSError):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _delete(entry.path)
                else:
                    os.unlink(entry.path)
        os.rmdir(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
