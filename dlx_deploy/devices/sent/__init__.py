"""What a board's Python is sent to run packages and to time models: sources as text.

Each has a ``main``, as ``Connection.python`` asks; beside the standard library they import the runtime alone, out of
the package or the copy of it that was put there before.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["sent_source"]


@cache
def sent_source(name: str) -> str:
    """The source of the module ``name`` of this room."""
    return (files(__package__) / f"{name}.py").read_text(encoding="utf-8")
