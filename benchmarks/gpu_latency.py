"""An engine's latency on this machine's GPU against ONNX Runtime CUDA and torch.compile, timed in turn, and its parity.

    python benchmarks/gpu_latency.py --output benchmarks/results

Every way takes uint8 images from host memory and gives logits in host memory, as a user would call it. What is not
installed is left out and named. Writes ``gpu-NAME.json`` for the GPU's name.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from engine_models import MODELS, PRECISIONS, images, network, planned, settings

from dlx_deploy.runtime.backends.session import open_session
from dlx_deploy.runtime.engine.api import load_api
from dlx_deploy.runtime.engine.build import build_engine
from dlx_deploy.runtime.engine.cache import EngineCache
from dlx_deploy.runtime.engine.execute import EngineSession
from dlx_deploy.runtime.engine.sidecar import this_machine
from dlx_deploy.runtime.errors import BackendMissing
from dlx_deploy.runtime.machine import machine_info
from dlx_deploy.runtime.timing.latency import summarise
from dlx_deploy.runtime.timing.sampling import Sampling, sample

__all__ = ["main", "measure", "parity"]

Call = Callable[[], Any]
WARMUP = 50
PARITY_IMAGES = 64


def flavour_here() -> str:
    """The TensorRT that is installed, the full one first."""
    for flavour in ("tensorrt", "tensorrt-rtx"):
        try:
            load_api(flavour)
        except BackendMissing:
            continue
        return flavour
    raise BackendMissing("neither tensorrt nor tensorrt-rtx is installed; pip install tensorrt")


def measure(name: str, precision: str, flavour: str, folder: Path, rounds: int) -> dict[str, Any]:
    """One model in one precision: build, cache hit, parity and latencies."""
    path, layers = planned(name, precision, folder)
    model, asked = path.read_bytes(), settings(flavour, precision, layers)
    api = load_api(flavour)
    here = this_machine(f"benchmark of {name} in {precision}", flavour, api.version)
    cache = EngineCache(folder / "cache")
    built = cache.get(here, asked, lambda timing: build_engine(model, asked, timing), print)
    started = time.perf_counter()
    found = cache.get(here, asked, None, print)
    session = EngineSession(api, found.plan)
    feeds = {"images": images(name, 1)}
    session.run(None, feeds)
    hit_s = time.perf_counter() - started
    plain = EngineSession(api, found.plan, cuda_graphs=False)
    ways: dict[str, Call] = {
        "engine_cuda_graph": lambda: session.run(None, feeds),
        "engine": lambda: plain.run(None, feeds),
    }
    left_out = _add(ways, "onnxruntime_cuda", lambda: _onnxruntime(model, feeds))
    left_out |= _add(ways, "torch_compile", lambda: _torch(name, precision, feeds["images"]))
    timings = {way: summarise(ns) for way, ns in sample(ways, Sampling(rounds, WARMUP, pace=0.0)).timings.items()}
    base = timings["engine_cuda_graph"].p50_ms
    return {
        "model": name,
        "precision": precision,
        "build_s": built.sidecar.build_s,
        "peak_memory_mib": built.sidecar.peak_memory_mib,
        "plan_bytes": len(built.plan),
        "precision_table": {k: v for k, v in built.sidecar.precision.items() if k != "layers"},
        "cache_hit_s": hit_s,
        "cuda_graph_notes": list(session.notes),
        "parity": parity(session, model, images(name, PARITY_IMAGES)),
        "latency": {way: vars(latency) for way, latency in timings.items()},
        "p50_ratio_to_engine": {way: latency.p50_ms / base for way, latency in timings.items()},
        "left_out": left_out,
    }


def parity(session: Any, model: bytes, pictures: np.ndarray) -> dict[str, float]:
    """How near the engine is to ONNX Runtime's exact Q/DQ arithmetic on the CPU."""
    reference = open_session(model, exact_qdq=True).run(None, {"images": pictures})[0].astype(np.float64)
    got = session.run(None, {"images": pictures})[0].astype(np.float64)
    error = float(np.mean((got - reference) ** 2))
    norms = np.linalg.norm(got, axis=1) * np.linalg.norm(reference, axis=1)
    return {
        "cosine_min": float(((got * reference).sum(axis=1) / norms).min()),
        "psnr_db": float(10 * np.log10(np.ptp(reference) ** 2 / error)) if error else float("inf"),
        "top1_agreement": float((got.argmax(1) == reference.argmax(1)).mean()),
    }


def _add(ways: dict[str, Call], name: str, make: Callable[[], Call]) -> dict[str, str]:
    """Adds a way, or gives the reason why it is left out."""
    try:
        call = make()
        call()
    except (BackendMissing, ImportError, RuntimeError) as e:
        return {name: str(e).splitlines()[0]}
    ways[name] = call
    return {}


def _onnxruntime(model: bytes, feeds: dict[str, np.ndarray]) -> Call:
    session = open_session(model, exact_qdq=False, providers=["CUDAExecutionProvider"])
    return lambda: session.run(None, feeds)


def _torch(name: str, precision: str, pictures: np.ndarray) -> Call:
    """torch.compile in FP16 for FP16 and INT8 plans (torch has no INT8 of its own for them), in FP32 for FP32."""
    import torch

    dtype = torch.float32 if precision == "fp32" else torch.float16
    model: Any = torch.compile(network(name).cuda().to(dtype), mode="max-autotune")
    mean, std = (
        torch.tensor(v, device="cuda").view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )

    def run() -> np.ndarray:
        with torch.inference_mode():
            planes = torch.from_numpy(pictures).cuda().permute(0, 3, 1, 2).float()
            logits: np.ndarray = model(((planes / 255 - mean) / std).to(dtype)).float().cpu().numpy()
            return logits

    return run


def main() -> int:
    """Prints a line per model and precision, and writes all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="folder of the JSON")
    arguments = parser.parse_args()
    try:
        flavour = flavour_here()
        here = this_machine("", flavour, load_api(flavour).version)
    except BackendMissing as e:
        sys.stderr.write(f"error: {e}\n")
        return 4
    gpu = {"name": here.gpu, "compute_capability": here.compute_capability, "driver": here.driver}
    slug = re.sub(r"[^a-z0-9]+", "-", (here.gpu or "gpu").lower()).strip("-")
    rows: list[dict[str, Any]] = []
    path = arguments.output / f"gpu-{slug}.json"
    report = {"schema": 1, "gpu": gpu, "tensorrt": f"{flavour} {here.version}", "machine": machine_info(), "rows": rows}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            for precision in PRECISIONS:
                row = measure(name, precision, flavour, Path(folder), arguments.rounds)
                rows.append(row)
                ratios = ", ".join(f"{way} {ratio:.2f}" for way, ratio in row["p50_ratio_to_engine"].items())
                print(f"{name:20} {precision:5} p50 ratios: {ratios}", flush=True)
                # After each row: a lease that ends early leaves what was measured.
                path.write_text(json.dumps(report, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
