"""The package that this copy of the runtime is inside: ``sys.path.insert(0, "X.dlx")`` makes a package importable."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import List, Optional
from zipimport import ZipImportError, zipimporter

from .errors import InputError
from .files import PathLike

__all__ = ["is_own_package", "own_package"]

FOLDER = "dlx_runtime"
_archive: Optional[str] = getattr(globals().get("__loader__"), "archive", None)
ARCHIVE = os.path.abspath(_archive) if _archive else None
"""The zip that this module was imported from, if it was."""


def is_own_package(path: PathLike) -> bool:
    """Whether this runtime was imported from the package at ``path``."""
    return os.path.abspath(os.fspath(path)) == ARCHIVE


def own_package() -> str:
    """The path of the package that this runtime was imported from.

    Raises:
        InputError: it was not imported from a package; or another package is on ``sys.path`` too, whose runtime Python
            has not imported since it had this one: it would be given this one's model.
    """
    if ARCHIVE is None:
        raise InputError("load() without a path is for the runtime inside a package; give the path: load('X.dlx')")
    others = [path for path in _packages_on_path() if path != ARCHIVE]
    if others:
        raise InputError(
            f"the runtime here was imported from {ARCHIVE}, and sys.path holds {others[0]} too; Python imports one of "
            f"them: say which package is meant: load({others[0]!r})"
        )
    return ARCHIVE


def _packages_on_path() -> List[str]:
    """The zips on ``sys.path`` with a runtime in them."""
    found = []
    for path in sys.path:
        with contextlib.suppress(ZipImportError):  # no zip, or one without it
            if os.path.isfile(path) and zipimporter(path).is_package(FOLDER):
                found.append(os.path.abspath(path))
    return found
