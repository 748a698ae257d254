"""This runtime's own sources, which every package carries."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

__all__ = ["own_sources"]


def own_sources() -> Dict[str, bytes]:
    """The files of this package of modules by their path in it (``tasks/images.py``), sorted.

    Tables are ``.json``, the page of ``serve`` is ``.html``.
    """
    here = Path(__file__).parent
    found = sorted(path for kind in ("py", "json", "html") for path in here.rglob(f"*.{kind}"))
    return {path.relative_to(here).as_posix(): path.read_bytes() for path in found}
