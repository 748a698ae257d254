"""Compiled code of the runtime inside a package, kept between starts: from a zip Python compiles every source again.

That is most of what a start takes. What is kept lies in the user's cache folder, a file for each package and Python, as
``{SHA-256 of a source: its code}``. Sources are read from the package at every start, so that a changed one is compiled
again. Kept code is trusted as ``__pycache__`` is, therefore only where this user alone can write it.
"""

from __future__ import annotations

import atexit
import contextlib
import marshal
import os
import stat
import sys
import zlib
from _frozen_importlib_external import MAGIC_NUMBER
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Dict, Optional, Sequence
from zipimport import ZipImportError, zipimporter

from .digests import sha256, sha256_hex

if TYPE_CHECKING:
    from importlib.abc import Loader
else:
    Loader = object  # the abstract one is slow to import

__all__ = ["CHECK_SIZE", "SUFFIX", "is_own", "keep_compiled", "kept_folder", "read_code"]

INDEX, SUFFIX = "package.json", ".code"
MAX_BYTES = 64 * 1024**2
CHECK_SIZE = 4  # bytes of a CRC-32, which finds damage
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def keep_compiled(package: str, place: str) -> None:
    """Lets modules below ``package``, imported from the folder ``place`` in a zip, use code that is kept, and keep it.

    Where there is no folder of this user's own for it, or in isolated mode (``-I``), they are compiled at each start.
    """
    zipped, folder = zipimporter(place), kept_folder()
    try:
        index = zipped.get_data(f"{zipped.archive}{os.sep}{INDEX}")
    except OSError:  # no package
        return
    python = f"{sys.implementation.cache_tag}-{sys.hexversion:x}-{MAGIC_NUMBER.hex()}-{sys.flags.optimize}"
    name = f"{sha256_hex(index)}-{python}"
    kept = _Kept(folder, name + SUFFIX)
    sys.meta_path.insert(0, _Finder(package, kept))
    atexit.register(kept.save)


def kept_folder() -> Optional[str]:
    """``dlx-deploy/code`` in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``); ``None``: none."""
    if sys.flags.isolated or not hasattr(os, "geteuid"):
        return None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "dlx-deploy", "code") if os.path.isabs(base) else None


class _Kept:
    """The code that ``folder`` holds for a package, and what was compiled meanwhile."""

    def __init__(self, folder: Optional[str], name: str) -> None:
        self._folder, self._name = folder, name
        self._old: Dict[bytes, bytes] = read_code(folder, name) if folder and is_own(folder) else {}
        self._new: Dict[bytes, CodeType] = {}

    def code(self, source: bytes, name: str) -> CodeType:
        """The code of ``source``, called ``name`` in tracebacks."""
        digest = sha256(source)
        old = self._old.pop(digest, None)  # imported once, and memory for as long as the process runs
        if old is not None:
            code: CodeType = marshal.loads(old)
            return code
        code = compile(source, name, "exec", dont_inherit=True)
        self._new[digest] = code
        return code

    def save(self) -> None:
        """Writes what was compiled, unless Python is told to write none (``-B``).

        A package that was removed or replaced meanwhile has nothing more to import: then it is not written.
        """
        if self._new and self._folder is not None and not sys.dont_write_bytecode:
            with contextlib.suppress(Exception):  # of a zip that is another one now anything may come, and all is done
                from .code_saving import save_code

                kept = read_code(self._folder, self._name)
                save_code(self._folder, self._name, kept, self._new)


class _Finder:
    """Finds the modules below ``package`` in its zip."""

    def __init__(self, package: str, kept: _Kept) -> None:
        self._prefix, self._kept = f"{package}.", kept
        self._folders: Dict[str, zipimporter] = {}

    def find_spec(
        self, name: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        """The module of that name, if it is one of ours."""
        if not name.startswith(self._prefix) or not path:
            return None
        try:
            zipped = self._folders.get(path[0]) or self._folders.setdefault(path[0], zipimporter(path[0]))
            is_package = zipped.is_package(name)
        except ZipImportError:
            return None
        below = f"{zipped.prefix}{name.rpartition('.')[2]}"
        member = f"{below}{os.sep}__init__.py" if is_package else f"{below}.py"
        spec = ModuleSpec(name, _Loader(zipped, member, self._kept), is_package=is_package)
        spec.origin, spec.has_location = f"{zipped.archive}{os.sep}{member}", True
        if is_package:
            spec.submodule_search_locations = [f"{zipped.archive}{os.sep}{below}"]
        return spec


class _Loader(Loader):
    """Runs the module in the zip's ``member``; all else is as of Python's own importer: its archive, sources, data."""

    def __init__(self, zipped: zipimporter, member: str, kept: _Kept) -> None:
        self._zipped, self._member, self._kept = zipped, member, kept

    def __getattr__(self, name: str) -> object:
        return getattr(self._zipped, name)

    def create_module(self, spec: ModuleSpec) -> None:
        """Python's own kind of module."""

    def exec_module(self, module: ModuleType) -> None:
        """Runs its code."""
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        """Its code, kept or compiled; ``name`` is the module's."""
        source = self._zipped.get_data(f"{self._zipped.archive}{os.sep}{self._member}")
        return self._kept.code(source, self._member)  # no path: a package that is moved has the same code


def read_code(folder: str, name: str) -> Dict[bytes, bytes]:
    """What the file holds; nothing where it is missing, damaged, or not written by this user alone."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
        with os.fdopen(os.open(os.path.join(folder, name), flags), "rb") as f:
            seen = os.fstat(f.fileno())
            if not stat.S_ISREG(seen.st_mode) or not _is_mine(seen) or seen.st_size > MAX_BYTES:
                return {}
            stored = f.read(MAX_BYTES)
        check, data = stored[:CHECK_SIZE], stored[CHECK_SIZE:]
        if zlib.crc32(data).to_bytes(CHECK_SIZE, "little") == check:  # marshal crashes on what is damaged
            kept: Dict[bytes, bytes] = marshal.loads(data)
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
