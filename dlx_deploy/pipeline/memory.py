"""How much memory a step's process takes, and how much the machine has, as Linux says it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dlx_deploy.runtime.control_groups import limits_of

__all__ = ["PROC", "available_mib", "fitting_jobs", "with_peak"]

PROC = Path("/proc")
_LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Of a container, by the two versions of control groups; a number of bytes, or "max"."""
_RESET_PEAK = "5"
_SLACK_KIB = 32 * 1024
"""The kernel counts pages for each core and adds them up late: its two numbers may differ by a little."""
_USUAL_JOBS = 2
_STEP_MIB = 1536
"""What a step that works with torch may take of the machine's memory, where images are of 224 px and batches usual."""

A = TypeVar("A")
R = TypeVar("R")


def with_peak(call: Callable[[A], R], argument: A, proc: Path = PROC) -> tuple[R, float | None]:
    """What ``call(argument)`` gives, and the most that this process had in memory meanwhile, in MiB.

    That is all that was resident: libraries and what earlier work left count, other processes do not. ``None`` where
    the system keeps no peak that can be begun anew (all but Linux, some sandboxes): one of the process's whole life
    would be another step's.
    """
    is_begun = _begin_anew(proc)
    given = call(argument)
    peak_kib = _status_kib(proc, "VmHWM") if is_begun else None
    return given, None if peak_kib is None else round(peak_kib / 1024, 1)


def available_mib(proc: Path = PROC) -> int | None:
    """What may still be taken of the machine's memory, and at most what its container may have; ``None``: unknown."""
    found = [kib // 1024 for kib in [_kib(proc / "meminfo", "MemAvailable")] if kib is not None]
    for words in limits_of("memory", _LIMITS, str(proc)):
        found += [int(word) // 1024**2 for word in words if word.isdigit()]
    return min(found, default=None)


def fitting_jobs(cores: int) -> int:
    """How many steps run at a time where nobody says: two, where there are cores and memory for them."""
    if os.name != "posix":  # Windows hands no pipe to a process by its number
        return 1
    memory_mib = available_mib()
    fitting = _USUAL_JOBS if memory_mib is None else max(memory_mib // _STEP_MIB, 1)
    return min(cores, fitting, _USUAL_JOBS)


def _begin_anew(proc: Path) -> bool:
    """Whether the peak is now that of this moment."""
    try:
        (proc / "self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    peak, now = _status_kib(proc, "VmHWM"), _status_kib(proc, "VmRSS")
    return peak is not None and now is not None and peak - now <= _SLACK_KIB  # some kernels take it and do nothing


def _status_kib(proc: Path, name: str) -> int | None:
    return _kib(proc / "self/status", name)


def _kib(path: Path, name: str) -> int | None:
    """The number of kB in the line ``name`` of a file of /proc."""
    for line in _text(path).splitlines():
        key, _, value = line.partition(":")
        number = value.strip().partition(" ")[0]
        if key == name and number.isdigit():
            return int(number)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
