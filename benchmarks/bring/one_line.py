"""One line from what people bring to a package: wall time, CPU time, peak memory, and how much of it is the pipeline's.

    python benchmarks/bring/one_line.py [--json benchmarks/results/bring-one-line.json]

A network of timm, one of torchvision, a user's file, ONNX of torch's exporter and of its older one (opset 11), and a
``torch.export`` program, all with random weights, for made-up pictures. ``in_stages``: the share of the wall time that
stages worked; what is left are imports, keys and the store, which the same steps by hand would partly need too. Steps
run one by one (``--jobs 1``), so that the peak is that of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.runtime.machine import machine_info

CLASSES = 4
SIDE = 64
PICTURES = {"test": 60, "calibration": 16}
"""Of each class."""
NET = """
from torch import nn


def make(num_classes=4):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes),
    )
"""
DISTRIBUTIONS = ("onnx", "onnxruntime", "timm", "torch", "torchvision")


def write_pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in PICTURES.items():
        for number in range(CLASSES):
            into = folder / "pictures" / split / f"class{number}"
            into.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 70, (SIDE + 16, SIDE + 16, 3)) + 50 * number
                Image.fromarray(pixels.astype(np.uint8)).save(into / f"{i}.png")


def write_networks(folder: Path) -> dict[str, list[str]]:
    """What each line says after ``dlx-deploy quantize``."""
    torch.manual_seed(0)
    spec = ImageInput(3, SIDE, SIDE)
    for name in ("timm:mobilenetv3_small_050", "resnet18"):
        save_file(
            build_model(name, {}, CLASSES, spec).state_dict(), folder / f"{name.removeprefix('timm:')}.safetensors"
        )
    (folder / "net.py").write_text(NET)
    names: dict[str, Any] = {}
    exec(NET, names)
    net: nn.Module = names["make"](CLASSES).eval()
    save_file(net.state_dict(), folder / "net.safetensors")
    example = (torch.zeros(2, 3, SIDE, SIDE),)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net, example, dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "exported.pt2")
    torch.onnx.export(net, example, folder / "model.onnx", dynamo=True, dynamic_shapes=({0: batch},))
    dynamic = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}
    torch.onnx.export(net, example, folder / "old.onnx", dynamo=False, opset_version=11, **dynamic)  # type: ignore[arg-type]
    imagenet, size = ["--normalization", "imagenet"], ["--size", str(SIDE)]
    small = "mobilenetv3_small_050"
    return {
        "timm": ["--model", f"timm:{small}", "--checkpoint", f"{small}.safetensors", *size],
        "torchvision": ["--model", "resnet18", "--checkpoint", "resnet18.safetensors", *size],
        "a user's file": ["--model", "net.py:make", "--checkpoint", "net.safetensors", *size, *imagenet],
        "ONNX, torch's exporter": ["--model", "model.onnx", *imagenet],
        "ONNX, opset 11": ["--model", "old.onnx", *imagenet],
        "torch.export program": ["--model", "exported.pt2", *imagenet],
    }


def measure(line: list[str], folder: Path) -> dict[str, Any]:
    """One build with a store of its own."""
    store = folder / "store"
    settings = ["gate.max_drop=0.99", "gate.allow_chance=true", "threads=1"]
    asked = [part for setting in settings for part in ("--set", setting)]
    head = [sys.executable, "-m", "dlx_deploy.cli"]
    command = [*head, "quantize", *line, "--data", "pictures", "--target", "rpi5", "--jobs", "1", *asked]
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--store", str(store)], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{line}: exit {process.returncode}")
    said = subprocess.run(
        [*head, "status", "--json", "--store", str(store)], cwd=folder, capture_output=True, text=True, check=True
    )
    (build,) = json.loads(said.stdout).values()
    stages = {step["step"]: round(step["seconds"], 2) for step in build["steps"]}
    return {
        "wall_s": round(wall, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": usage.ru_maxrss // 1024,
        "in_stages": round(sum(stages.values()) / wall, 3),
        "stages_s": stages,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "brought"
        folder.mkdir()
        write_pictures(folder)
        for number, (name, line) in enumerate(write_networks(folder).items()):
            own = shutil.copytree(folder, Path(scratch) / str(number))
            found[name] = {"line": " ".join(["dlx-deploy quantize", *line]), **measure(line, own)}
            sys.stderr.write(f"{name}: {found[name]['wall_s']} s\n")
    versions = {name: metadata.version(name) for name in DISTRIBUTIONS}
    report = {"schema": 1, "machine": machine_info(), "versions": versions, "builds": found}
    text = json.dumps(report, sort_keys=True, indent=1) + "\n"
    sys.stdout.write(text)
    if asked.json is not None:
        asked.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
