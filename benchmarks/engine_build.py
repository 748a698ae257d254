"""What an engine costs to build and what its layers compute in, without a GPU, by TensorRT-RTX.

python benchmarks/engine_build.py --json benchmarks/results/engine-build.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine_models import MODELS, PRECISIONS, planned, settings

from dlx_deploy.runtime.engine.build import build_engine
from dlx_deploy.runtime.machine import machine_info

__all__ = ["main", "measure"]


def measure(name: str, precision: str, folder: Path) -> dict[str, Any]:
    """One build in a process of its own."""
    path, layers = planned(name, precision, folder)
    built = build_engine(path.read_bytes(), settings("tensorrt-rtx", precision, layers))
    return {
        "model": name,
        "precision": precision,
        "build_s": built.build_s,
        "peak_memory_mib": built.peak_memory_mib,
        "onnx_bytes": path.stat().st_size,
        "plan_bytes": len(built.plan),
        "shares": built.table.shares(),
        "layers": built.table.describe(),
        "reformats": built.table.reformats,
        "builder": f"{built.flavour} {built.version}",
    }


def main() -> int:
    """Prints a line per build, and writes all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there too")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            for precision in PRECISIONS:
                row = measure(name, precision, Path(folder))
                rows.append(row)
                print(
                    f"{name:20} {precision:5} {row['build_s']:6.2f} s {row['peak_memory_mib']:7.0f} MiB "
                    f"{row['plan_bytes']:>11,} bytes  {row['layers']}",
                    flush=True,
                )
    if arguments.json:
        report = {"schema": 1, "machine": machine_info(), "rows": rows}
        arguments.json.write_text(json.dumps(report, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
