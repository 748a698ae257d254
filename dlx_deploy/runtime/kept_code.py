"""Compiled code of the runtime inside a package, kept between starts: from a zip Python compiles every source again.

That is most of what a start takes. What is kept lies in the user's cache folder, a file for each Python and runtime:
packages of one runtime share it. Of which source a code is say its name in the package and what the zip's directory has
of it, its CRC-32 and its length. So a source is read when it is compiled alone, and one that has changed is compiled.
Kept code is trusted as ``__pycache__`` is, therefore only where this user alone can write it. This module is compiled
at every start: what can be elsewhere is.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import stat
import sys
import zipimport
import zlib
from _frozen_importlib_external import MAGIC_NUMBER
from types import CodeType
from typing import Any, Dict, Optional, Tuple, Union

__all__ = ["CHECK_SIZE", "SUFFIX", "Kept", "Mark", "is_own", "kept_folder", "read_code"]

SUFFIX = ".code"
MAX_BYTES = 64 * 1024**2
CHECK_SIZE = 4  # bytes of a CRC-32, which finds damage
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
DIRECTORIES: Dict[str, Dict[str, Tuple[Any, ...]]] = getattr(zipimport, "_zip_directory_cache", {})
"""What Python's importer has read of zips, as of Python 3.8 to 3.14; without it nothing is kept."""
Mark = Tuple[str, int, int]  # name, CRC-32, bytes


class Kept:
    """What is kept for the runtime in ``zipped``: ``old``, and ``new``, which was compiled or digested meanwhile."""

    def __init__(self, zipped: zipimport.zipimporter) -> None:
        self.folder = kept_folder()
        self.new: Dict[Mark, Union[CodeType, str]] = {}
        python = f"{sys.implementation.cache_tag}-{sys.hexversion:x}-{MAGIC_NUMBER.hex()}-{sys.flags.optimize}"
        listed = DIRECTORIES.get(zipped.archive, {})
        marks = [(name, listed[name][7]) for name in listed if name.startswith(zipped.prefix)]
        self.name = f"{zlib.crc32(repr(marks).encode()):08x}-{python}{SUFFIX}"
        self.old = read_code(self.folder, self.name) if self.folder and is_own(self.folder) else {}

    def code(self, zipped: zipimport.zipimporter, member: str) -> CodeType:
        """The code of ``member`` of the zip, called so in tracebacks: a package that is moved has the same code."""
        listed = DIRECTORIES.get(zipped.archive, {}).get(member)
        mark = (member, listed[7], listed[3]) if listed else ("", 0, 0)
        old = self.old.pop(mark, None)  # imported once, and memory for as long as the process runs
        if old is not None:
            code: CodeType = marshal.loads(old)
            return code
        source = zipped.get_data(zipped.archive + os.sep + member)
        code = compile(source, member, "exec", dont_inherit=True)
        if mark == (member, zlib.crc32(source), len(source)):  # else the zip is damaged: not to be remembered
            self.new[mark] = code
        return code


def kept_folder() -> Optional[str]:
    """``dlx-deploy/code`` in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``); ``None``: none."""
    if sys.flags.isolated or not hasattr(os, "geteuid"):
        return None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "dlx-deploy", "code") if os.path.isabs(base) else None


def read_code(folder: str, name: str) -> Dict[Mark, bytes]:
    """What the file holds; nothing where it is missing, damaged, or not written by this user alone."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
        with os.fdopen(os.open(os.path.join(folder, name), flags), "rb") as f:
            seen = os.fstat(f.fileno())
            if not stat.S_ISREG(seen.st_mode) or not _is_mine(seen) or seen.st_size > MAX_BYTES:
                return {}
            stored = f.read(seen.st_size)
        check, data = stored[:CHECK_SIZE], stored[CHECK_SIZE:]
        if zlib.crc32(data).to_bytes(CHECK_SIZE, "little") == check:  # marshal crashes on what is damaged
            kept: Dict[Mark, bytes] = marshal.loads(data)
            return kept
    return {}


def is_own(folder: str) -> bool:
    """Whether ``folder`` is one, no link to one, that this user alone can write to."""
    try:
        seen = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(seen.st_mode) and _is_mine(seen)


def _is_mine(seen: os.stat_result) -> bool:
    return seen.st_uid == os.geteuid() and not seen.st_mode & OTHERS_WRITE
