"""Imports of the runtime inside a package, by code that is kept between starts (``kept_code``)."""

from __future__ import annotations

import atexit
import contextlib
import marshal
import os
import sys
import zlib
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Dict, Optional, Sequence
from zipimport import ZipImportError, zipimporter

from .kept_code import Kept, read_code

if TYPE_CHECKING:
    from importlib.abc import Loader
else:
    Loader = object  # the abstract one is slow to import

__all__ = ["keep_compiled", "kept_digest"]


def keep_compiled(package: str, kept: Kept) -> None:
    """Lets modules below ``package``, imported from a zip, use code that is kept, and keeps what is compiled.

    Where there is no folder of this user's own for it, or in isolated mode (``-I``), they are compiled at each start.
    """
    sys.meta_path.insert(0, _Finder(package, kept))
    atexit.register(_save, kept)


def kept_digest(member: str, data: bytes) -> str:
    """The SHA-256 of ``data``, a member of the package that this runtime is in.

    Of the runtime's own sources it is kept and found as their code is: they take most of what a start would digest.
    """
    from .digests import sha256_hex

    found = next((one for one in sys.meta_path if isinstance(one, _Finder) and one.holds(member)), None)
    if found is None:
        return sha256_hex(data)
    mark = (f"sha256 {member}", zlib.crc32(data), len(data))
    if mark in found.kept.old:
        return str(marshal.loads(found.kept.old[mark]))
    digest = found.kept.new[mark] = sha256_hex(data)
    return digest


def _save(kept: Kept) -> None:
    """Writes what was compiled and digested, unless Python is told to write none (``-B``).

    A package that was removed or replaced meanwhile has nothing more to import: then it is not written.
    """
    if kept.new and kept.folder is not None and not sys.dont_write_bytecode:
        with contextlib.suppress(Exception):  # of a zip that is another one now anything may come, and all is done
            from .code_saving import save_code

            save_code(kept.folder, kept.name, read_code(kept.folder, kept.name), kept.new)


class _Finder:
    """Finds the modules below ``package`` in its zip."""

    def __init__(self, package: str, kept: Kept) -> None:
        self._prefix, self.kept = f"{package}.", kept
        self._folders: Dict[str, zipimporter] = {}

    def holds(self, member: str) -> bool:
        """Whether the member of that name is a file of the modules that are found here."""
        return member.startswith(self._prefix.replace(".", "/"))

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
        spec = ModuleSpec(name, _Loader(zipped, member, self.kept), is_package=is_package)
        spec.origin, spec.has_location = f"{zipped.archive}{os.sep}{member}", True
        if is_package:
            spec.submodule_search_locations = [f"{zipped.archive}{os.sep}{below}"]
        return spec


class _Loader(Loader):
    """Runs the module in the zip's ``member``; all else is as of Python's own importer: its archive, sources, data."""

    def __init__(self, zipped: zipimporter, member: str, kept: Kept) -> None:
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
        return self._kept.code(self._zipped, self._member)
