"""How fast whole networks are in INT8 on a CPU, with operators between layers as islands and by the table of kernels.

    python benchmarks/compression/cpu_int8.py --json benchmarks/results/cpu-int8.json
    python benchmarks/compression/cpu_int8.py --mask avx2 --json …     # as a lesser x86 CPU (masked_cpuid.c)

Random weights, which cost as much as others; batch 1, one thread, CPU time, all graphs in turn. ``speedup``: FP32's
time over INT8's. ``islands``: without a table (``quantization.kernels = ""``); ``table``: as a profile of that CPU has
it. ``sqnr_db``: the answers to inputs that were not calibrated with, beside FP32's: of random weights, so that it only
says whether integers between layers cost anything.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kernels import TITLES, masked
from reports import ratio, versions

from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.quantization.quantize import QuantizationRequest, quantize_model
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.export.spec import ExportSpec
from dlx_deploy.nn.models.unet import UNet
from dlx_deploy.runtime.backends.session import open_session
from dlx_deploy.runtime.machine import machine_info
from dlx_deploy.targets.kernels import integer_kernels

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
NETWORKS: Mapping[str, tuple[Callable[[], torch.nn.Module], int]] = {
    "mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, 224),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, 224),
    "efficientnet_b0": (torchvision.models.efficientnet_b0, 224),
    "unet, width 16": (lambda: UNet(3, 5, 16, 3), 64),
    "unet, width 32": (lambda: UNet(3, 5, 32, 3), 128),
}
"""Name → the network and the side of its images."""


def pictures(count: int, side: int, seed: int) -> Samples:
    """Patches of one colour: uint8[count, side, side, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Samples({"images": small.repeat(side // 8, axis=1).repeat(side // 8, axis=2)})


def row_of(name: str, cpu: str, rounds: int, folder: Path) -> dict[str, Any]:
    make, side = NETWORKS[name]
    torch.manual_seed(0)
    shape = (None, side, side) if name.startswith("unet") else (None,)
    files = {"fp32": folder / "fp32.onnx", "islands": folder / "islands.onnx", "table": folder / "table.onnx"}
    export_onnx(
        make().eval(), files["fp32"], ExportSpec(side, side, 3, outputs={"logits": shape}, opset=20, **IMAGENET)
    )
    for kind, kernels in (("islands", ""), ("table", cpu)):
        request = QuantizationRequest("cpu", reduce_range=cpu == "avx2", kernels=integer_kernels(kernels))
        quantize_model(files["fp32"], files[kind], pictures(16, side, 0), request)
    held = pictures(8, side, 1)
    answers = {kind: run_onnx(path, held, exact_qdq=False, threads=1)["logits"] for kind, path in files.items()}
    sessions = {kind: open_session(path.read_bytes(), exact_qdq=False, threads=1) for kind, path in files.items()}
    taken: dict[str, list[float]] = {kind: [] for kind in files}
    feed = pictures(1, side, 2).feed()
    for _ in range(rounds):
        for kind, session in sessions.items():
            session.run(None, feed)
            began = time.process_time()
            session.run(None, feed)
            session.run(None, feed)
            taken[kind].append((time.process_time() - began) / 2)
    signal = float(np.square(answers["fp32"].astype(np.float64)).sum())
    return {
        "network": name,
        "side": side,
        "fp32_ms": round(1e3 * float(np.median(taken["fp32"])), 2),
        **{
            kind: {
                "ms": round(1e3 * float(np.median(taken[kind])), 2),
                "speedup": ratio(taken["fp32"], taken[kind]),
                "sqnr_db": round(10 * np.log10(signal / float(np.square(answers["fp32"] - answers[kind]).sum())), 2),
            }
            for kind in ("islands", "table")
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", choices=sorted(TITLES), default="avx512-vnni", help="what this CPU is")
    parser.add_argument("--mask", choices=sorted(TITLES), help="be that lesser CPU")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", type=Path, required=True, help="other CPUs in it stay")
    given = parser.parse_args()
    if given.mask:
        own = ["--cpu", given.mask, "--rounds", str(given.rounds), "--json", str(given.json)]
        return masked(given.mask, own, __file__)
    torch.set_num_threads(1)
    found: dict[str, Any] = {"schema": 1, "cpus": {}}
    if given.json.exists():
        found = json.loads(given.json.read_text(encoding="utf-8"))
    rows = []
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row_of(name, given.cpu, given.rounds, Path(folder)))
        sys.stderr.write(json.dumps(rows[-1]) + "\n")
    found["cpus"][given.cpu] = {
        "title": TITLES[given.cpu],
        "machine": machine_info(),
        "versions": versions(("onnxruntime", "torch", "torchvision")),
        "rows": rows,
    }
    given.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
