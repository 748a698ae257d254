"""What a start of a package costs beside a bare onnxruntime script that answers the same picture: time and memory.

    python benchmarks/boards/cold_start.py digits-0.1.0-cpu-x86_64.dlx [--before OLD.dlx] [--json cold.json]

A round starts each way once, in turn, as a process of its own; files are in the system's cache. ``first``: the package
where no compiled code of its runtime is kept yet. ``ended``: the bare script ended by ``os._exit``, as a package ends;
``predict_of_ended``: the package beside that. ``import``: its runtime alone. ``before``: a package with another
runtime. Seconds of CPU count what other work on the machine does not take; the wall clock is told beside them. Ratios
are medians of the rounds' own, with a bootstrap interval. ``resident``: of a process that has answered and still runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dlx_deploy.runtime.machine import machine_info
from dlx_deploy.runtime.package.contents import Package, open_package

__all__ = ["compare", "main"]

RESAMPLES = 2_000
COLD, MEMORY, IMPORT_S = 1.2, 1.1, 0.3  # asked: times the bare script's start and memory; seconds of CPU
BARE = """
import sys
import numpy as np
import onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
tensor = session.get_inputs()[0]
_, height, width, channels = tensor.shape
picture = Image.open("picture.png").convert("L" if channels == 1 else "RGB").resize((width, height))
pixels = np.asarray(picture).reshape(1, height, width, channels)
answer = session.run(None, {tensor.name: pixels})[0]
"""
LOAD = """
import sys
sys.path.insert(0, "x.dlx")
from dlx_runtime import load
answer = load().predict("picture.png")
"""
RESIDENT = """
with open("/proc/self/status") as f:
    print(next(int(line.split()[1]) for line in f if line.startswith("VmRSS")))
"""
IMPORT = "import sys; sys.path.insert(0, 'x.dlx'); from dlx_runtime import load"
NUMPY = "import numpy"


def compare(package: Package, folder: Path, rounds: int, before: bool) -> dict[str, Any]:
    """Each way's medians and ratios to ``bare``; ``folder`` holds ``x.dlx`` and, with ``before``, ``before.dlx``."""
    (folder / "model.onnx").write_bytes(package.model)
    image = next(iter(package.golden_inputs.values()))[0]
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(folder / "picture.png")
    ways = {
        "bare": ["-c", BARE],
        "ended": ["-c", BARE + "import os; os._exit(0)"],
        "predict": ["x.dlx", "predict", "picture.png"],
        "load": ["-c", LOAD],
        "first": ["x.dlx", "predict", "picture.png"],
        "import": ["-c", IMPORT],
        "numpy": ["-c", NUMPY],
        **({"before": ["before.dlx", "predict", "picture.png"]} if before else {}),
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    _started(["x.dlx", "predict", "picture.png"], folder, "kept")
    _started(["-c", LOAD], folder, "kept")
    for i in range(rounds):
        for name, argv in ways.items():
            seen[name].append(_started(argv, folder, f"fresh-{i}" if name == "first" else "kept"))
    cpu = {name: np.array(values)[:, 0] for name, values in seen.items()}
    wall = {name: np.array(values)[:, 1] for name, values in seen.items()}
    resident = {name: _resident(code, folder) for name, code in (("bare", BARE), ("load", LOAD))}
    return {
        "cpu_s": {name: float(np.median(values)) for name, values in cpu.items()},
        "wall_s": {name: float(np.median(values)) for name, values in wall.items()},
        "cpu_ratio": _ratios(cpu),
        "wall_ratio": _ratios(wall),
        "resident_mib": resident,
        "resident_ratio": resident["load"] / resident["bare"],
    }


def _environment(folder: Path, cache: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "XDG_CACHE_HOME": str(folder / cache)}


def _started(argv: list[str], folder: Path, cache: str) -> tuple[float, float]:
    """The seconds of CPU and by the clock that the process took."""
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *argv], cwd=folder, env=_environment(folder, cache), stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{argv} ended with {child.returncode}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - began


def _resident(code: str, folder: Path) -> float:
    """MiB after the answer, the median of five processes."""
    argv = [sys.executable, "-c", code + RESIDENT]
    environment = _environment(folder, "kept")
    told = [subprocess.run(argv, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True) for _ in range(5)]
    return float(np.median([int(one.stdout.split()[-1]) / 1024 for one in told]))


def _ratios(seconds: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    beside = {name: _ratio(values, seconds["bare"]) for name, values in seconds.items()}
    return {**beside, "predict_of_ended": _ratio(seconds["predict"], seconds["ended"])}


def _ratio(values: np.ndarray, base: np.ndarray) -> dict[str, float]:
    ratios = values / base
    picks = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5])
    return {"value": float(np.median(ratios)), "low": float(low), "high": float(high)}


def main() -> int:
    """Prints the comparison as JSON; gives 0 if what was asked for is met, else 3."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="a .dlx file that reads images, for a CPU")
    parser.add_argument("--before", type=Path, metavar="DLX", help="one with another runtime, timed in turn")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there too")
    arguments = parser.parse_args()
    package = open_package(arguments.package)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "x.dlx").write_bytes(arguments.package.read_bytes())
        if arguments.before:
            (folder / "before.dlx").write_bytes(arguments.before.read_bytes())
        found = compare(package, folder, arguments.rounds, bool(arguments.before))
    met = {
        "cold_start": found["wall_ratio"]["predict"]["value"] <= COLD,
        "import": found["cpu_s"]["import"] - found["cpu_s"]["numpy"] <= IMPORT_S,
        "memory": found["resident_ratio"] <= MEMORY,
    }
    about = {"package": arguments.package.name, "model_bytes": len(package.model), "rounds": arguments.rounds}
    asked = {"cold_start": COLD, "memory": MEMORY, "import_s": IMPORT_S}
    report = {"schema": 1, **about, "machine": machine_info(), "asked": asked, "met": met, **found}
    text = json.dumps(report, sort_keys=True, indent=1) + "\n"
    sys.stdout.write(text)
    if arguments.json:
        arguments.json.write_text(text, encoding="utf-8")
    return 0 if all(met.values()) else 3


if __name__ == "__main__":
    sys.exit(main())
