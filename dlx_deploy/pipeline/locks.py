"""A lock per step, so that two builds never do the same work at once; and what the file system's errors mean."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dlx_deploy.errors import StoreError

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows)
    fcntl = None  # type: ignore[assignment]

__all__ = ["Refused", "locked", "locked_at_once", "store_error"]

Refused = Callable[[OSError, Path], StoreError]
"""What a file system's refusal is to a user."""


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None], error: Refused | None = None) -> Iterator[None]:
    """Hold the lock that the file ``path`` stands for; ``waiting`` is called once if another process has it.

    A dead holder frees it. ``error``: what is raised where the file is none of a store.

    Raises:
        StoreError: the file cannot be made.
    """
    handle = _locked(path, waiting, error or store_error)
    try:
        yield
    finally:
        os.close(handle)


def locked_at_once(path: Path) -> contextlib.ExitStack | None:
    """The lock that the file ``path`` stands for, held until the context is left; ``None`` if another process has it.

    Raises:
        StoreError: the file cannot be made.
    """

    class Taken(Exception):
        pass

    def refuse() -> None:
        raise Taken

    held = contextlib.ExitStack()
    try:
        held.callback(os.close, _locked(path, refuse, store_error))
    except Taken:
        return None
    return held


def store_error(e: OSError, path: Path) -> StoreError:
    """What ``e`` at ``path`` is to a user, with a remedy."""
    remedy = {
        errno.ENOSPC: "free some space (dlx-deploy gc helps) and build again: finished stages are kept",
        errno.EDQUOT: "free some of your quota and build again: finished stages are kept",
        errno.EROFS: "the file system is read-only; name another folder with --store",
        errno.EACCES: "make it writable, or name another folder with --store",
    }.get(e.errno or 0, "check the disk, or name another folder with --store")
    return StoreError(f"store {path}: {e.strerror}; {remedy}")


def _locked(path: Path, waiting: Callable[[], None], error: Refused) -> int:
    """The open, locked file at ``path``: one that garbage collection deleted meanwhile locks nobody out."""
    said = False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = _opened(path)
        except OSError as e:
            raise error(e, path) from e
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not said:
                        waiting()
                    said = True
                    fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_open_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as e:
        if e.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not path.is_file():
            raise
        return os.open(path, os.O_RDONLY)  # which is enough for a lock: whether it can be written is for who writes


def _is_open_at(handle: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False
