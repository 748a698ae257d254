"""What this machine is and how it is clocked, read from files; no command is run, nothing is looked up by network."""

from __future__ import annotations

import os
import platform
from typing import Dict, Iterator, Optional

from .control_groups import PROC, limits_of
from .linux import CPUINFO, DEVICE_TREE_MODEL

__all__ = ["MACHINE_NAME", "available_cores", "limited_threads", "machine_info", "power_mode"]

MACHINE_NAME = "label"
"""What ``machine_info`` calls the name of a machine for people."""
QUOTA = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
"""Microseconds of a period that a container may compute: ``200000 100000``; ``max`` and -1: as many as it likes."""


def available_cores(proc: str = PROC) -> int:
    """How many cores this process may use: those that it may run on, and no more than its container's quota pays for.

    Of a quota of two and a half they are two: a third would have all of them held up.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, max(1, int(min(_quotas(proc), default=cores))))


def limited_threads(proc: str = PROC) -> int:
    """The threads for a library that would count the machine's cores itself; 0: it may, as it may use them all."""
    cores = available_cores(proc)
    return cores if cores < (os.cpu_count() or 1) else 0


def machine_info() -> Dict[str, object]:
    """The machine's label and what a latency depends on: CPU, usable cores, governor, power mode, versions.

    ``label`` is short and holds no host name, for instance ``NVIDIA Jetson Orin Nano (6 cores, Linux aarch64)``.
    A value that cannot be read is ``None``.
    """
    import numpy as np  # a warm build asks for the cores alone

    cpu = _cpu_model()
    cores = available_cores()
    system = f"{platform.system()} {platform.machine()}"
    board = _text(DEVICE_TREE_MODEL)
    return {
        MACHINE_NAME: f"{board or cpu or 'unknown CPU'} ({cores} cores, {system})",
        "board": board,
        "cpu": cpu,
        "cores": cores,
        "system": system,
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "power_mode": power_mode(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": _onnxruntime_version(),
    }


def power_mode() -> Optional[str]:
    """A Jetson's current power mode as nvpmodel keeps it, ``None`` elsewhere."""
    return _text("/var/lib/nvpmodel/status")


def _quotas(proc: str) -> Iterator[float]:
    """In cores; one for each control group that has any."""
    for words in limits_of("cpu", QUOTA, proc):
        if len(words) == 2 and all(word.isdigit() and int(word) for word in words):
            yield int(words[0]) / int(words[1])


def _text(path: str) -> Optional[str]:
    try:
        with open(path, "rb") as f:
            return f.read(256).decode("utf-8", "replace").strip("\0\n ") or None
    except OSError:
        return None


def _cpu_model() -> Optional[str]:
    try:
        with open(CPUINFO, encoding="utf-8", errors="replace") as f:
            fields = [line.partition(":") for line in f]
    except OSError:
        return platform.processor() or None
    named = {key.strip().lower(): value.strip() for key, _, value in fields}
    return named.get("model name") or named.get("hardware") or named.get("model") or None


def _onnxruntime_version() -> Optional[str]:
    try:
        import onnxruntime
    except ImportError:
        return None
    return str(onnxruntime.__version__)
