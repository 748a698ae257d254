"""The control groups of Linux above a process, by which a container is given less than its machine has.

``man 7 cgroups``: of version 2 all that is shared out stands in the files of one tree, of version 1 each has its own.
"""

from __future__ import annotations

import os
from typing import Dict, Iterator, List, Sequence

__all__ = ["PROC", "limits_of"]

PROC = "/proc"
NEW = ""
"""What stands for the one tree of version 2, where version 1 has a name, ``cpu`` or ``memory``."""


def limits_of(controller: str, files: Sequence[str], proc: str = PROC) -> Iterator[List[str]]:
    """The words of ``files``, of version 1 or 2, in each group above this process that shares out ``controller``."""
    own = _groups(controller, proc)
    for mount in _text(proc, "self/mountinfo").splitlines():
        before, _, after = mount.partition(" - ")
        places, kind = before.split(" ")[3:5], after.split(" ")
        name = NEW if kind[0] == "cgroup2" else controller
        if len(places) < 2 or not (kind[0] == "cgroup2" or (kind[0] == "cgroup" and controller in _names(kind[-1]))):
            continue
        root, folder = places
        for part in ("", *_inside(own.get(name, ""), root)):
            folder = os.path.join(folder, part)
            words = [_text(folder, file).split() for file in files]
            yield [word for some in words for word in some]


def _groups(controller: str, proc: str) -> Dict[str, str]:
    """The path of this process's group, by ``controller`` (version 1) and ``NEW``."""
    found = {}
    for line in _text(proc, "self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in _names(names):
            found[controller] = path
        elif not names:
            found[NEW] = path
    return found


def _names(text: str) -> List[str]:
    return text.split(",")


def _inside(path: str, root: str) -> List[str]:
    """The parts of ``path`` below ``root``; none where it is not below, as of who sees no group but its own."""
    above = root.rstrip("/")
    return [part for part in path[len(above) :].split("/") if part] if path.startswith(f"{above}/") else []


def _text(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""
