"""Writes what ``kept_code`` reads; apart from it, as that is compiled at every start."""

from __future__ import annotations

import contextlib
import marshal
import os
import zlib
from types import CodeType
from typing import List, Mapping, Union

from .files import write_atomically
from .kept_code import CHECK_SIZE, SUFFIX, Mark, is_own

__all__ = ["save_code"]

MOST_FILES = 16
"""Runtimes whose code is kept; the one that was written longest ago goes first."""


def save_code(folder: str, name: str, old: Mapping[Mark, bytes], new: Mapping[Mark, Union[CodeType, str]]) -> None:
    """Writes the file ``name`` with all of this code and these digests, if ``folder`` is this user's own or becomes so.

    A disk that is full or read-only is no error: it is compiled again the next time.
    """
    with contextlib.suppress(OSError):
        if not _made(folder):
            return
        data = marshal.dumps({**old, **{mark: marshal.dumps(value) for mark, value in new.items()}})
        write_atomically(os.path.join(folder, name), zlib.crc32(data).to_bytes(CHECK_SIZE, "little") + data, 0o600)
        _prune(folder)


def _made(folder: str) -> bool:
    """Whether there is ``folder``, of this user alone; it is made only below what is this user's.

    With another's home, as by ``sudo``, it would be a folder there that its owner cannot use.
    """
    above = folder
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if above != folder:
        if os.stat(above).st_uid != os.geteuid():
            return False
        os.makedirs(folder, 0o700, exist_ok=True)
    return is_own(folder)


def _prune(folder: str) -> None:
    """Leaves the newest files."""
    files: List[os.DirEntry[str]] = [entry for entry in os.scandir(folder) if entry.name.endswith(SUFFIX)]
    for entry in sorted(files, key=lambda one: one.stat(follow_symlinks=False).st_mtime)[:-MOST_FILES]:
        os.unlink(entry.path)
