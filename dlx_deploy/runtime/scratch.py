"""Temporary folders that end with the process they belong to, however that ends.

A folder is locked by its process for as long as that lives; what a killed one has left goes when the next folder of
its kind is made. A lock and no process number tells who lives: containers that share a temporary folder count apart.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path
from typing import Optional

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows)
    fcntl = None  # type: ignore[assignment]

__all__ = ["Scratch"]

GRACE_S = 60.0
"""A folder is made a moment before it is locked."""


class Scratch:
    """A folder named ``KIND-…``, in ``room`` or among the system's temporary ones, until ``close``."""

    def __init__(self, kind: str, room: Optional[str] = None) -> None:
        room = room or tempfile.gettempdir()
        _sweep(room, kind)
        self.path = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=room))
        self._ending = weakref.finalize(self, _end, self.path, _locked(self.path))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        self._ending()


def _end(folder: Path, lock: Optional[int]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _sweep(room: str, kind: str) -> None:
    """Remove the folders of this kind and user whose process is gone."""
    if fcntl is None:  # pragma: no cover (Windows)
        return
    for old in Path(room).glob(f"{kind}-*"):
        with contextlib.suppress(OSError):
            seen = old.lstat()
            if seen.st_uid != os.getuid() or time.time() - seen.st_mtime < GRACE_S:
                continue
            if (lock := _locked(old)) is not None:
                _end(old, lock)


def _locked(folder: Path) -> Optional[int]:
    """The handle that holds the folder's lock; ``None``: another process has it, or there are no locks here."""
    if fcntl is None:  # pragma: no cover (Windows)
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # taken, or a file system without locks
        os.close(handle)
        return None
    return handle
