"""Files that are kept on a board by their digest: which are there, and the oldest go where they become too many."""

import os
from typing import Any, Dict

__all__ = ["main"]


def main(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Keep the files ``names`` of the folder; of others no more than ``limit_bytes``, those used last."""
    folder, kept = argument["folder"], set(argument["names"])
    for name in kept:
        os.utime(os.path.join(folder, name))
    others = [entry for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False) and entry.name not in kept]
    left, removed = argument["limit_bytes"], []
    for entry in sorted(others, key=lambda one: one.stat().st_mtime, reverse=True):
        left -= entry.stat().st_size
        if left < 0:
            os.unlink(entry.path)
            removed.append(entry.name)
    return {"removed": removed}
