"""What there is on a board: packages with their releases, who works on them, and who measures."""

import os
from typing import List

from .files import Table, field_root
from .lock import holder
from .measuring import measured_by
from .releases import releases

__all__ = ["overview"]

MOST = 100  # packages that are told of


def overview(asked: Table) -> Table:
    """The package at ``path``, or those in folders below it: each with its ``current`` release's record, how many
    releases there are, and who holds its lock; and who measures on the board. Without locks' secrets."""
    root = field_root(asked)
    return {"packages": [_package(one) for one in _roots(root)[:MOST]], "measuring": measured_by()}


def _roots(root: str) -> List[str]:
    below = [root]
    if os.path.isdir(root) and not os.path.isdir(os.path.join(root, "releases")):
        below = [os.path.join(root, name) for name in sorted(os.listdir(root))]
    return [one for one in below if os.path.isdir(os.path.join(one, "releases"))]


def _package(root: str) -> Table:
    told = releases({"path": root})
    found = told["releases"]
    known = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    current = [one for one in known if one.get("digest") == told["current"]]
    held = holder(root) or {}
    return {
        "root": root,
        "current": current[0] if current else None,
        "releases": len(known),
        "held": {name: held[name] for name in ("who", "purpose", "since") if name in held} or None,
    }
