"""What evaluation costs: CPU time of exact arithmetic, peak memory of a build at 224 px, what a second board shares.

    python benchmarks/evaluation.py --json benchmarks/results/evaluation.json

A ResNet-56 of random weights answers 32 x 32 images in exact arithmetic: in float32, and in INT8 as TensorRT computes
it. It is run as the stages do, batches side by side on a thread each, and with all threads at each node, in turn; CPU
seconds are per 10,000 images. Then timm's EfficientNet-Lite0 (random weights, 224 px) is built for two Jetsons in a
process of its own, as many steps at a time as it runs by itself; what all its processes hold together is looked at
five times a second. At most 180 CPU seconds for teacher and INT8 model together and 1,536 MiB are asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from reports import finish, run_watched
from safetensors.torch import save_file
from torch import nn

from dlx_deploy.graph.execution.evaluation import BATCH, run_onnx
from dlx_deploy.graph.quantization.quantize import QuantizationRequest, quantize_model
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.export.spec import ExportSpec
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.runtime.backends.session import open_session

MOST_CPU_S, MOST_MIB = 180.0, 1536.0
COUNT, ROUNDS, SIDE = 1280, 5, 32
SPLITS = {"train": 40, "test": 20}
"""Pictures of each of ten classes."""
BOARDS = ("jetson-orin-nano-8gb", "jetson-agx-orin-64gb")
CONFIG = """
[data]
kind = "imagefolder"
path = "img"
height = 224
width = 224
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[teacher]
model = "timm:tf_efficientnet_lite0"
checkpoint = "lite0.safetensors"
epochs = 0
[distill]
enabled = false
[prune]
enabled = false
[compile]
engine = "off"
[gate]
max_drop = 0.99
allow_chance = true
"""


def settled(network: nn.Module, side: int) -> nn.Module:
    """``network`` with running statistics of noise, so that what it computes stays finite."""
    network.train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(16, 3, side, side))
    return network.eval()


def models(folder: Path) -> dict[str, bytes]:
    torch.manual_seed(0)
    network = settled(build_model("resnet56", {}, 10, ImageInput(channels=3, height=SIDE, width=SIDE)), SIDE)
    spec = ExportSpec(SIDE, SIDE, 3, (0.5,) * 3, (0.25,) * 3, outputs={"logits": (10,)})
    export_onnx(network, folder / "float32.onnx", spec)
    quantize_model(folder / "float32.onnx", folder / "int8.onnx", pictures(64), QuantizationRequest(style="tensorrt"))
    return {name: (folder / f"{name}.onnx").read_bytes() for name in ("float32", "int8")}


def pictures(count: int) -> Samples:
    values = np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    return Samples({"images": values})


def all_threads_at_each_node(model: bytes, samples: Samples) -> None:
    session = open_session(model, exact_qdq=True)
    for part in samples.batches(BATCH, fill=False):
        session.run(None, part.feed())


def exact_arithmetic() -> dict[str, Any]:
    """CPU and wall seconds per 10,000 images, by model and way, the median of rounds that were taken in turn."""
    ways: dict[str, Callable[[bytes, Samples], object]] = {
        "batches_side_by_side": lambda model, samples: run_onnx(model, samples, exact_qdq=True),
        "all_threads_at_each_node": all_threads_at_each_node,
    }
    with tempfile.TemporaryDirectory() as folder:
        made = models(Path(folder))
    samples = pictures(COUNT)
    found: dict[str, dict[str, dict[str, list[float]]]] = {
        way: {name: {"cpu_s": [], "wall_s": []} for name in made} for way in ways
    }
    for _ in range(ROUNDS):
        for way, run in ways.items():
            for name, model in made.items():
                cpu, wall = time.process_time(), time.perf_counter()
                run(model, samples)
                found[way][name]["cpu_s"].append(time.process_time() - cpu)
                found[way][name]["wall_s"].append(time.perf_counter() - wall)
    return {
        way: {
            name: {unit: round(median(each) * 10_000 / COUNT, 1) for unit, each in times.items()}
            for name, times in of_models.items()
        }
        for way, of_models in found.items()
    }


def lite0_build(folder: Path) -> dict[str, Any]:
    """Peak memory of a build for two boards, and which steps the second one ran."""
    import timm

    torch.manual_seed(0)
    network = settled(timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=10), 96)
    save_file(network.state_dict(), folder / "lite0.safetensors")
    draw = np.random.default_rng(0)
    for split, count in SPLITS.items():
        for label in range(10):
            (folder / "img" / split / f"c{label}").mkdir(parents=True)
            for i in range(count):
                coarse = Image.fromarray(draw.integers(0, 256, (14, 14, 3), dtype=np.uint8))
                coarse.resize((224, 224)).save(folder / "img" / split / f"c{label}" / f"{i}.png")
    (folder / "deploy.toml").write_text(CONFIG, encoding="utf-8")
    targets = [word for board in BOARDS for word in ("--target", board)]
    cost = run_watched([sys.executable, "-m", "dlx_deploy.cli", "build", "--json", *targets], folder)
    manifests = [json.loads(path.read_text()) for path in (folder / ".dlx" / "builds").glob("*.json")]
    steps = {manifest["target_name"]: manifest["steps"] for manifest in manifests}
    return {
        **cost,
        "seconds": {step["step"]: step["seconds"] for step in steps[BOARDS[0]]},
        "step_peak_mib": {step["step"]: step.get("peak_memory_mib") for step in steps[BOARDS[0]]},
        "ran_for_the_second_board": [step["step"] for step in steps[BOARDS[1]] if step["status"] == "ran"],
    }


def main() -> None:
    """Print the figures as JSON, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there too")
    arguments = parser.parse_args()
    exact = exact_arithmetic()
    with tempfile.TemporaryDirectory() as folder:
        build = lite0_build(Path(folder))
    total = sum(of_model["cpu_s"] for of_model in exact["batches_side_by_side"].values())
    found = {
        "resnet56_10000_images": {**exact, "limit_cpu_s": MOST_CPU_S, "met": total <= MOST_CPU_S},
        "lite0_224_px_build": {**build, "limit_mib": MOST_MIB, "met": build["peak_mib"] <= MOST_MIB},
        "load_average_at_end": os.getloadavg()[0],
    }
    finish(found, arguments.json)


if __name__ == "__main__":
    main()
