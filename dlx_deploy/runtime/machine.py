"""What this machine is and how it is clocked, read from files; no command is run, nothing is looked up by network."""

from __future__ import annotations

import os
import platform
from typing import Dict, Optional

from .linux import CPUINFO, DEVICE_TREE_MODEL

__all__ = ["MACHINE_NAME", "available_cores", "machine_info", "power_mode"]

MACHINE_NAME = "label"
"""What ``machine_info`` calls the name of a machine for people."""


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
