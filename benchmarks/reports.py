"""What benchmarks share: made-up pictures, processes that are measured, a report with the machine and the versions."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dlx_deploy.runtime.machine import machine_info

__all__ = ["finish", "publish", "ratio", "run_measured", "run_watched", "versions", "write_pictures"]

RESAMPLES = 2_000
LOOK_EVERY_S = 0.2


def write_pictures(folder: Path, splits: Mapping[str, int], classes: int, side: int) -> None:
    """``folder/SPLIT/CLASS/N.png`` of ``side`` px, so many of each class: noise, and a class is a brightness."""
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for number in range(classes):
            into = folder / split / f"class{number}"
            into.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 70, (side, side, 3)) + 50 * number
                Image.fromarray(pixels.astype(np.uint8)).save(into / f"{i}.png")


def run_measured(command: Sequence[str], folder: Path, stderr: int | None = None) -> tuple[int, dict[str, Any]]:
    """The exit code of ``command``, and its wall and CPU seconds and the peak of its largest process in MiB: at
    least what this process holds itself, as Linux counts that too."""
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, {
        "wall_s": round(time.perf_counter() - began, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": usage.ru_maxrss // (1024**2 if sys.platform == "darwin" else 1024),
    }


def run_watched(command: Sequence[str], folder: Path) -> dict[str, Any]:
    """Wall and CPU seconds of ``command``, and the most that it and the processes below it held together (Linux).

    Looked at five times a second: ``peak_mib`` is the sum of their PSS, what is shared counted once; ``peak_rss_mib``
    that of all that they have resident. CPU seconds are those of the process and of those below it that it waited for.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process, peak = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL), [0, 0]
    while process.poll() is None:
        held = [_held_kib(pid) for pid in _tree(process.pid)]
        peak = [max(most, sum(one[i] for one in held)) for i, most in enumerate(peak)]
        time.sleep(LOOK_EVERY_S)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"{command}: exit {process.returncode}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    mib = [most // 1024 for most in peak]
    return {"wall_s": round(wall, 1), "cpu_s": round(cpu_s, 1), "peak_mib": mib[0], "peak_rss_mib": mib[1]}


def _tree(pid: int) -> list[int]:
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has just ended
            found += [one for child in path.read_text().split() for one in _tree(int(child))]
    return found


def _held_kib(pid: int) -> tuple[int, int]:
    """PSS and RSS."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0, 0
    named = {line.partition(":")[0]: line.split()[1] for line in lines[1:]}
    return int(named["Pss"]), int(named["Rss"])


def ratio(ours: list[float], theirs: list[float], seed: int = 0) -> dict[str, float]:
    """The median of the rounds' ratios, with a 95 % bootstrap interval over rounds: both were timed in turn."""
    rounds = np.array(ours) / np.array(theirs)
    picks = np.random.default_rng(seed).integers(0, len(rounds), (RESAMPLES, len(rounds)))
    low, high = np.percentile(np.median(rounds[picks], axis=1), [2.5, 97.5])
    return {"value": round(float(np.median(rounds)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def versions(distributions: Sequence[str]) -> dict[str, str]:
    """Those that are installed, and which are not."""
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def publish(found: Mapping[str, Any], path: Path | None, shown: str | None = None) -> None:
    """Write ``found`` with the machine, as JSON, to ``path``; print it, or ``shown`` in its place."""
    text = json.dumps({"schema": 1, "machine": machine_info(), **found}, sort_keys=True, indent=1) + "\n"
    sys.stdout.write(text if shown is None else shown)
    if path is not None:
        path.write_text(text, encoding="utf-8")


def finish(found: Mapping[str, Any], path: Path | None) -> None:
    """As ``publish``, for what runs in torch: with the device and the versions too."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    named = versions(("accelerate", "torch", "torchvision"))
    publish({"device": device, "versions": named, **found}, path)
