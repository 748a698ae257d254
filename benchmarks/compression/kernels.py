"""Which operators ONNX Runtime computes faster on integers than in floating point between Q/DQ, on this CPU.

    python benchmarks/compression/kernels.py --json benchmarks/results/kernels.json
    python benchmarks/compression/kernels.py --mask avx2 --json …       # as a lesser x86 CPU (masked_cpuid.c)
    python benchmarks/compression/kernels.py --rounds 0 --json … --table dlx_deploy/targets/kernels.toml

Each operator stands between quantized tensors, once with ONNX Runtime's integer kernel and once dequantized, computed
in float32 and quantized again, in turn, in CPU time on one thread, batch 1. ``image convolution`` is a network's
beginning, from a uint8 image to what the second convolution reads, with the first one on integers and in float32. The
table keeps the median of all shapes. ``steps_off``: how far the integers are from those of the arithmetic that is
written.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kernel_graphs import OPERATORS, Array, Pairing, image
from reports import ratio, versions

from dlx_deploy.runtime.machine import machine_info

HERE = Path(__file__).parent
SHAPES = ((16, 112, 112), (96, 28, 28), (72, 28, 28), (240, 14, 14), (576, 7, 7))
"""Channels, height, width: as in the networks that phones run; those that 16 divides and one that it does not."""
IMAGES = [
    (side, channels, *kind)
    for side in (32, 96, 224)
    for channels in (1, 3)
    for kind in ((16, 3, 1), (32, 3, 2), (32, 5, 2), (64, 7, 2))
]
"""Side of the image, its channels; channels, kernel and stride of the convolution."""
TITLES = {
    "avx2": "x86-64 with AVX2, without an 8-bit dot product",
    "avx-vnni": "x86-64 with AVX2 and AVX-VNNI",
    "avx512-vnni": "x86-64 with AVX-512 VNNI",
    "arm64-dot": "Arm64 with SDOT",
}
IMAGE = "image convolution"
LEAST, MOST, STEPS, MEAN_STEPS = 1.0, 0.9, 2, 0.05
HEAD = """\
# Which operators pay on integers between layers on INT8, by CPU: written by benchmarks/compression/kernels.py.
# speedup: time dequantized, computed in float32 and quantized again, over time on integers: the median of shapes
# (benchmarks/results/kernels.json has each). An operator that is not here was not timed, or computes something else.
# image_convolution: channels of an image x side of the kernel -> the same of a network's beginning, its first
# convolution included: the highest.
"""


class Timed:
    """A session of one thread, and the operators that ONNX Runtime made of it."""

    def __init__(self, model: ModelProto, exact: bool, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        options.optimized_model_filepath = str(folder / "optimized.onnx")
        if exact:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        self.operators = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]

    def answer(self, feed: dict[str, Array]) -> Array:
        values: Array = self._session.run(None, feed)[0]
        return values

    def seconds(self, feed: dict[str, Array], times: int) -> float:
        """Of CPU, for one of so many runs."""
        began = time.process_time()
        for _ in range(times):
            self._session.run(None, feed)
        return (time.process_time() - began) / times


def compared(name: str, shape: Sequence[int], pairing: Pairing, rounds: int) -> dict[str, Any]:
    """One row: times in turn, and how far apart the integers are."""
    with tempfile.TemporaryDirectory() as folder:
        integers = Timed(pairing.integers, False, Path(folder))
        island = Timed(pairing.island, pairing.exact, Path(folder))
    ends = [one.answer(pairing.feed).astype(np.int64) for one in (integers, island)]
    times = max(1, round(2e-3 / island.seconds(pairing.feed, 3)))
    rows = [(island.seconds(pairing.feed, times), integers.seconds(pairing.feed, times)) for _ in range(rounds)]
    before, after = ([row[side] for row in rows] for side in (0, 1))
    off = ends[0] - ends[1]
    operators = integers.operators
    return {
        "operator": name,
        "shape": list(shape),
        "kernels": operators,
        "is_fused": "DequantizeLinear" not in operators,
        "speedup": ratio(before, after),
        "island_us": round(1e6 * float(np.median(before)), 1),
        "integer_us": round(1e6 * float(np.median(after)), 1),
        "steps_off": int(np.abs(off).max()),
        "mean_steps_off": round(float(off.mean()), 4),
    }


def rows_of(rounds: int) -> Iterator[dict[str, Any]]:
    for name, pairing in OPERATORS.items():
        for shape in SHAPES:
            yield compared(name, shape, pairing(shape), rounds)
    for case in IMAGES:
        row = compared(IMAGE, case, image(*case), rounds)
        del row["steps_off"], row["mean_steps_off"], row["is_fused"]  # two precisions of one layer
        yield row


def table_of(found: dict[str, Any]) -> str:
    """The table of all CPUs in ``found``, as TOML.

    Of an operator it is the median ratio, and only where it gives the integers that are written at every shape: a step
    or two off, as halves are rounded otherwise, but none on average. Of image convolutions it is the highest of each
    kernel, for they are the ones that leave INT8.
    """
    lines = [HEAD, "schema = 1", f"least_speedup = {LEAST}  # choice: a hole between integers costs its neighbours too"]
    lines += [f"most_image_convolution = {MOST}  # choice: what differs by less stays on integers"]
    lines += [f"least_image_side = {min(IMAGES)[0]}  # px; smaller images were not timed", ""]
    for cpu, one in sorted(found["cpus"].items()):
        ratios: dict[str, list[float]] = {}
        refused: set[str] = set()
        for row in one["rows"]:
            operator = str(row["operator"]).partition(",")[0]
            if operator == IMAGE:
                operator = "{1}x{3}".format(*row["shape"])
            elif row["steps_off"] > STEPS or abs(row["mean_steps_off"]) > MEAN_STEPS:
                refused.add(operator)
            ratios.setdefault(operator, []).append(row["speedup"]["value"])
        images = sorted(name for name in ratios if name[0].isdigit())
        operators = sorted(set(ratios) - refused - set(images))
        lines += [f"[cpus.{cpu}]", f'title = "{one["title"]}"', f'machine = "{one["machine"]}"']
        lines += [f'onnxruntime = "{one["onnxruntime"]}"', f'date = "{one["date"]}"', "", f"[cpus.{cpu}.speedup]"]
        lines += [f'"{name}" = {np.median(ratios[name]):.2f}' for name in operators]
        lines += ["", f"[cpus.{cpu}.image_convolution]", *(f"{name} = {max(ratios[name]):.2f}" for name in images), ""]
    return "\n".join(lines)


def masked(cpu: str, arguments: Sequence[str], script: str = __file__) -> int:
    """The exit code of a benchmark in a process that sees a lesser CPU."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "masked_cpuid.so"
        source = HERE / "masked_cpuid.c"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        environment = {**os.environ, "LD_PRELOAD": str(library), "MASKED_CPUID": cpu}
        return subprocess.run([sys.executable, script, *arguments], env=environment, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", choices=sorted(TITLES), default="avx512-vnni", help="what this CPU is")
    parser.add_argument("--mask", choices=sorted(TITLES), help="be that lesser CPU")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", type=Path, required=True, help="other CPUs in it stay")
    parser.add_argument("--table", type=Path, help="written anew from all CPUs in the JSON")
    given = parser.parse_args()
    if given.mask:
        own = ["--cpu", given.mask, "--rounds", str(given.rounds), "--json", str(given.json)]
        return masked(given.mask, [*own, *(["--table", str(given.table)] if given.table else [])])
    found: dict[str, Any] = {"schema": 1, "cpus": {}}
    if given.json.exists():
        found = json.loads(given.json.read_text(encoding="utf-8"))
    if given.rounds:
        machine = machine_info()
        rows = []
        for row in rows_of(given.rounds):
            rows.append(row)
            sys.stderr.write(f"{row['operator']:20s} {row['shape']!s:18s} {row['speedup']['value']}\n")
        label = f"{machine['label']}{' as a lesser one' if 'MASKED_CPUID' in os.environ else ''}"
        found["cpus"][given.cpu] = {
            "title": TITLES[given.cpu],
            "machine": label,
            "onnxruntime": onnxruntime.__version__,
            "versions": versions(("onnx", "onnxruntime", "numpy")),
            "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
            "rounds": given.rounds,
            "rows": rows,
        }
        given.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if given.table:
        given.table.write_text(table_of(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
