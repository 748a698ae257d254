"""Files that are kept on a board by their digest: which are there, and the oldest go where they become too many."""

import fcntl
import os
import re
import shutil
import time
from typing import Any, Dict

__all__ = ["main"]

GONE = ".gone"
"""What a folder's name ends in while it is removed."""
ASIDE = r".*\.files\.\d+\Z"
"""The names of folders while they are unpacked, which are locked meanwhile."""
GRACE_S = 60.0
"""A folder is made a moment before it is locked."""


def main(argument: Dict[str, Any]) -> Dict[str, Any]:
    """Keep ``names`` of the folder, files or folders of some; of others no more than ``limit_bytes``, the last used."""
    folder, kept = argument["folder"], set(argument["names"])
    for name in kept:
        os.utime(os.path.join(folder, name))
    entries = [entry for entry in os.scandir(folder) if not entry.is_symlink() and entry.name not in kept]
    ended = [entry for entry in entries if entry.name.endswith(GONE) or is_left(entry)]
    for entry in ended:
        shutil.rmtree(entry.path, ignore_errors=True)
    others = [entry for entry in entries if entry not in ended]
    left, removed = argument["limit_bytes"], []
    for entry in sorted(others, key=lambda one: one.stat().st_mtime, reverse=True):
        left -= size_of(entry)
        if left < 0:
            remove(entry)
            removed.append(entry.name)
    return {"removed": removed}


def is_left(entry: Any) -> bool:
    """Whether it is a folder of an unpacking that was ended: by the lock, as a number may be of another container."""
    if not re.match(ASIDE, entry.name) or time.time() - entry.stat().st_mtime < GRACE_S:
        return False
    handle = os.open(entry.path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:  # somebody unpacks there, or a file system without locks
        return False
    finally:
        os.close(handle)


def size_of(entry: Any) -> int:
    """The bytes of a file, or of all files below a folder."""
    if not entry.is_dir():
        return int(entry.stat().st_size)
    below = (os.path.join(at, name) for at, _, names in os.walk(entry.path) for name in names)
    return sum(os.lstat(path).st_size for path in below)


def remove(entry: Any) -> None:
    """Take a file or a folder away; a folder has its name no more before the first of its files goes."""
    if entry.is_dir():
        gone = "%s.%d%s" % (entry.path, os.getpid(), GONE)
        os.rename(entry.path, gone)
        shutil.rmtree(gone, ignore_errors=True)
    else:
        os.unlink(entry.path)
