"""What weights of 4 bits cost and save, beside INT8 and FP32: a text transformer and a ViT, for an engine and a CPU.

    python benchmarks/compression/weights.py --json benchmarks/results/compression-weights.json

Both networks are trained here, by the pipeline's own stages in a folder that ``--work`` names: ``texts`` is four layers
of width 128 on docstrings, ``vit`` six layers of width 128 on scikit-learn's digits. Each row is one file by the one
writer: its size, how near its answers to the test split are to those in FP32 (signal over noise in dB, the share of
decisions that are the same), and top-1 with the standard error of its paired drop. An engine's file is judged in exact
arithmetic, a CPU's by this machine's kernels. Size is exact; nothing here is timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.quantization.quantize import QuantizationRequest, quantize_model
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.runtime.machine import machine_info
from dlx_deploy.targets.profile import Style

__all__ = ["main", "rows_of"]

NETWORKS: dict[str, list[str]] = {
    "texts": [
        "data.kind=docstrings",
        "data.max_length=64",
        "data.truncate=true",
        "teacher.model=transformer",
        "teacher.arguments={ width = 128, depth = 4, heads = 4, dropout = 0.0 }",
        "teacher.epochs=8",
    ],
    "vit": [
        "teacher.model=vit",
        "teacher.arguments={ width = 128, depth = 6, heads = 4, patch = 2 }",
        "teacher.epochs=40",
    ],
}
COMMON = [
    "threads=1",
    "teacher.optimizer=adamw",
    "teacher.learning_rate=0.001",
    "distill.enabled=false",
    "prune.enabled=false",
    "quantize.precision=fp32",
    "gate.allow_chance=true",
    "verify.rounds=20",
]
ASKED: dict[str, dict[str, Any]] = {
    "int8": {},
    "fp8": {"int8": False, "fp8": True},
    "w4a8": {"weight_bits": 4},
    "int4, blocks of 32": {"int8": False, "block_size": 32},
    "int4, blocks of 128": {"int8": False, "block_size": 128},
}
STYLES: dict[Style, dict[str, Any]] = {"tensorrt": {"half": True}, "cpu": {}}
EFFORTS = ("fast", "best")

Answers = NDArray[np.float32]


def trained(name: str, work: Path) -> tuple[Path, Dataset]:
    """The float32 ONNX of a network and its data, made once in ``work``."""
    options = [part for value in (f"name={name}", *COMMON, *NETWORKS[name]) for part in ("--set", value)]
    command = [sys.executable, "-m", "dlx_deploy.cli", "build", "--target", "cpu-x86_64", *options]
    subprocess.run(command, cwd=work, stdout=sys.stderr, check=True)
    newest = max((work / ".dlx/builds").glob("*.json"))
    steps = {step["document"]["stage"]: step["key"] for step in json.loads(newest.read_text())["steps"]}
    store = work / ".dlx/store"
    return store / steps["export"] / "model.onnx", open_data(store / steps["data"] / "data")


def rows_of(name: str, source: Path, data: Dataset, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each file, as soon as it is there; the first is the network in FP32."""
    test, labels = data.samples("test"), data.targets("test")
    reference = _answers(source, test, exact=False)
    yield {"network": name, "precision": "fp32", **_judged(source, reference, reference, labels)}
    for style, more in STYLES.items():
        for precision, asked in ASKED.items():
            if precision == "fp8" and style == "cpu":
                continue
            for effort in EFFORTS:
                started = time.process_time()
                wanted: dict[str, Any] = {**more, **asked, "effort": effort}
                report = quantize_model(
                    source, folder / "made.onnx", data.samples("calibration"), QuantizationRequest(style, **wanted)
                )
                cpu_s = round(time.process_time() - started, 2)
                answers = _answers(folder / "made.onnx", test, exact=style == "tensorrt")
                kinds = list(report.layers.values())
                yield {
                    "network": name,
                    "style": style,
                    "precision": precision,
                    "effort": effort,
                    **_judged(folder / "made.onnx", answers, reference, labels),
                    "layers": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
                    "steps_kept": [step.step for step in report.decisions.steps if step.kept],
                    "cpu_s": cpu_s,
                }


def _answers(model: Path, test: Samples, exact: bool) -> Answers:
    return np.asarray(next(iter(run_onnx(model, test, exact_qdq=exact).values())), np.float32)


def _judged(model: Path, answers: Answers, reference: Answers, labels: NDArray[np.int64]) -> dict[str, Any]:
    right, before = (values.argmax(axis=1) == labels for values in (answers, reference))
    noise = float(np.square(answers.astype(np.float64) - reference).sum())
    paired = right.astype(np.float64) - before
    return {
        "size_bytes": model.stat().st_size,
        "sqnr_db": round(10 * np.log10(float(np.square(reference.astype(np.float64)).sum()) / noise), 2)
        if noise
        else None,
        "agreement": round(float((answers.argmax(axis=1) == reference.argmax(axis=1)).mean()), 4),
        "top1": round(100 * float(right.mean()), 2),
        "drop_se": round(100 * float(paired.std() / np.sqrt(len(paired))), 2),
        "test_samples": len(labels),
    }


def main() -> None:
    """Print each row as it is found, and write all where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there too")
    parser.add_argument("--only", choices=sorted(NETWORKS), help="one of the networks")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where networks are trained, and found again")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        for name in [arguments.only] if arguments.only else NETWORKS:
            (work / name).mkdir(parents=True, exist_ok=True)
            for row in rows_of(name, *trained(name, work / name), Path(scratch)):
                print(json.dumps(row), flush=True)
                rows.append(row)
    versions = {package: metadata.version(package) for package in ("onnx", "onnxruntime", "torch")}
    result = {"schema": 1, "machine": machine_info(), "versions": versions, "rows": rows}
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
