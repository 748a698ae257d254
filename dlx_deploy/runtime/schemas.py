"""The schema number of everything that the runtime writes, and the one sentence that refuses a newer file."""

from __future__ import annotations

from typing import Optional

__all__ = ["PACKAGE", "RESULT", "SIDECAR", "newer_schema"]

PACKAGE = 4
"""Of ``package.json`` (docs/package.md); what has no budgets of slices is still written as schema 3, and what is judged
by its task's own metric, sample by sample, as schema 2."""
SIDECAR = 1
"""Of ``engine.json`` (docs/engines.md)."""
RESULT = 1
"""Of what a command prints with ``--json``."""


def newer_schema(seen: object, newest: int, remedy: str = "use a newer dlx-deploy") -> Optional[str]:
    """Why a file of schema ``seen`` is refused by who reads up to ``newest``; ``None`` if it is not newer."""
    if isinstance(seen, bool) or not isinstance(seen, int) or seen <= newest:
        return None
    return f"schema is {seen}; this version reads up to {newest}; {remedy}"
