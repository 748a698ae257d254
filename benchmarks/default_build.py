"""What the default build costs and gives: cold and warm wall time, peak memory, start-up, size and speed ratios.

    python benchmarks/default_build.py --json benchmarks/results/default-build.json

Runs ``dlx-deploy`` in fresh processes in a folder of its own. Wall times are of this machine and moment. The ratios are
those of sizes (the teacher's ONNX over the package) and of p50 (teacher over shipped model, timed in turn).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dlx_deploy.runtime.machine import machine_info

__all__ = ["main", "measure"]

REPEATS = 7


def run(folder: Path, *arguments: str) -> tuple[float, float, str]:
    """Wall seconds, peak memory in MiB (of all runs so far: grows only) and the standard output of one command."""
    command = [sys.executable, "-m", "dlx_deploy.cli", *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    seconds = time.perf_counter() - began
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, done.stdout


def median_seconds(folder: Path, *arguments: str) -> float:
    """The median wall time of several runs."""
    return statistics.median(run(folder, *arguments)[0] for _ in range(REPEATS))


def measure(folder: Path) -> dict[str, Any]:
    """All figures, from an empty folder."""
    help_s, help_mib, _ = run(folder, "--help")
    cold_s, cold_mib, out = run(folder, "build", "--target", "jetson", "--json")
    (jetson,) = json.loads(out)
    (cpu,) = json.loads(run(folder, "build", "--target", "cpu-x86_64", "--json")[2])
    return {
        "schema": 1,
        "machine": machine_info(),
        "load_average_at_end": os.getloadavg()[0],
        "cold_s": cold_s,
        "cold_peak_mib": cold_mib,
        "warm_s_median": median_seconds(folder, "build", "--target", "jetson", "--json"),
        "help_s_median": median_seconds(folder, "--help"),
        "help_peak_mib": help_mib,
        "first_help_s": help_s,
        "jetson": _figures(jetson),
        "cpu-x86_64": {**_figures(cpu), "p50_ratio_teacher_over_shipped": _speed_ratio(cpu)},
    }


def _figures(summary: dict[str, Any]) -> dict[str, Any]:
    keep = ("size_bytes", "teacher_size_ratio", "results", "gates")
    return {key: summary[key] for key in keep}


def _speed_ratio(summary: dict[str, Any]) -> float:
    rows = {row["model"]: row for row in summary["results"]["rows"]}
    shipped = next(row for row in rows.values() if row["shipped"])
    return float(rows["teacher"]["latency"]["p50_ms"] / shipped["latency"]["p50_ms"])


def main() -> None:
    """Print the figures as JSON, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(measure(Path(folder)), indent=1, sort_keys=True) + "\n"
    if arguments.json:
        arguments.json.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
