"""One line from what people bring to a package, against the same steps by hand: wall and CPU time, peak memory.

    python benchmarks/bring/one_line.py [--rounds 2] [--json benchmarks/results/bring-one-line.json]

A network of timm, one of torchvision, a user's file, ONNX of torch's exporter and of its older one (opset 11), and a
``torch.export`` program, all with random weights, for made-up pictures; with ``--onnx FILE``, which reads NHWC pictures
of 64 px, one of another exporter. By hand: ``by_hand.py``, in turn with the tool, each in a fresh process with one
thread. ``overhead``: of CPU time, which other work on the machine hardly moves; of the medians over rounds. What the
tool checks (``checked.py``) is its work, not its cost: ``overhead_without_checks``; but for the rehearsal, in which
libraries are first used that the steps need as well. Steps run one by one (``--jobs 1``); the peaks are their records'.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from reports import publish, run_measured, versions, write_pictures  # noqa: E402  # of the folder above

CLASSES = 4
SIDE = 64
REHEARSAL = "rehearsal, before the data are read"
"""As in ``checked.py``."""
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
IMPORTS = {"timm": ("timm",), "resnet18": ("torchvision",)}
"""What networks come from, by what ``--model`` begins with."""
DISTRIBUTIONS = ("onnx", "onnxruntime", "timm", "torch", "torchvision")


def write_networks(folder: Path, side: int) -> dict[str, list[str]]:
    """What each line says after ``dlx-deploy quantize``."""
    torch.manual_seed(0)
    spec = ImageInput(3, side, side)
    for name in ("timm:mobilenetv3_small_050", "resnet18"):
        save_file(
            build_model(name, {}, CLASSES, spec).state_dict(), folder / f"{name.removeprefix('timm:')}.safetensors"
        )
    (folder / "net.py").write_text(NET)
    names: dict[str, Any] = {}
    exec(NET, names)
    net: nn.Module = names["make"](CLASSES).eval()
    save_file(net.state_dict(), folder / "net.safetensors")
    example = (torch.zeros(2, 3, side, side),)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net, example, dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "exported.pt2")
    torch.onnx.export(net, example, folder / "model.onnx", dynamo=True, dynamic_shapes=({0: batch},))
    dynamic = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}
    torch.onnx.export(net, example, folder / "old.onnx", dynamo=False, opset_version=11, **dynamic)  # type: ignore[arg-type]
    imagenet, size = ["--normalization", "imagenet"], ["--size", str(side)]
    small = "mobilenetv3_small_050"
    return {
        "timm": ["--model", f"timm:{small}", "--checkpoint", f"{small}.safetensors", *size],
        "torchvision": ["--model", "resnet18", "--checkpoint", "resnet18.safetensors", *size],
        "a user's file": ["--model", "net.py:make", "--checkpoint", "net.safetensors", *size, *imagenet],
        "ONNX, torch's exporter": ["--model", "model.onnx", *imagenet],
        "ONNX, opset 11": ["--model", "old.onnx", *imagenet],
        "torch.export program": ["--model", "exported.pt2", *imagenet],
    }


def by_tool(line: list[str], folder: Path) -> dict[str, Any]:
    """One build with a store of its own."""
    settings = ["gate.max_drop=0.99", "gate.allow_chance=true", "threads=1"]
    asked = [part for setting in settings for part in ("--set", setting)]
    store = folder / "store"
    said = ["quantize", *line, "--data", "pictures", "--target", "rpi5", "--jobs", "1", *asked, "--store", str(store)]
    imports = ",".join(IMPORTS.get(line[1].partition(":")[0], ())) if "--checkpoint" in line else ""
    code, cost = run_measured([sys.executable, str(HERE / "checked.py"), "checks.json", imports, *said], folder)
    if code:
        raise SystemExit(f"{line}: exit {code}")
    asking = [sys.executable, "-m", "dlx_deploy.cli", "status", "--json", "--store", str(store)]
    (build,) = json.loads(subprocess.run(asking, capture_output=True, text=True, check=True).stdout).values()
    steps = {step["step"]: [step["seconds"], step.get("peak_memory_mib")] for step in build["steps"]}
    cost["peak_mib"] = max((mib for _, mib in steps.values() if mib), default=None)
    return {**cost, "checks_cpu_s": json.loads((folder / "checks.json").read_text()), "steps_s_and_mib": steps}


def by_hand(line: list[str], folder: Path, side: int) -> dict[str, Any]:
    """The same steps in one script."""
    options = dict(zip(line[::2], line[1::2], strict=True))
    network, weights = options["--model"].partition(":make")[0], options.get("--checkpoint")
    asked = {"network": network, "weights": weights, "side": side, "classes": CLASSES, "nhwc": "nhwc" in network}
    code, cost = run_measured([sys.executable, str(HERE / "by_hand.py"), json.dumps(asked)], folder)
    if code:
        raise SystemExit(f"{line}, by hand: exit {code}")
    del cost["peak_mib"]  # Linux counts what this process held when it began that one
    return cost


def compare(tool: list[dict[str, Any]], hand: list[dict[str, Any]]) -> dict[str, Any]:
    """What rounds in turn come to, and the rounds."""
    ours, theirs = (median(one["cpu_s"] for one in rounds) for rounds in (tool, hand))
    checked = median(sum(s for name, s in one["checks_cpu_s"].items() if name != REHEARSAL) for one in tool)
    return {
        "overhead": round(ours / theirs - 1, 3),
        "overhead_without_checks": round((ours - checked) / theirs - 1, 3),
        "by_tool": tool,
        "by_hand": hand,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", type=int, default=SIDE, help="of the images, in px")
    parser.add_argument("--only", nargs="+", default=[], help="names, as in the result")
    parser.add_argument("--onnx", type=Path, help="one of another exporter, which reads float32[N, SIDE, SIDE, 3]")
    parser.add_argument("--json", type=Path, help="write the result there too")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "brought"
        folder.mkdir()
        write_pictures(folder / "pictures", PICTURES, CLASSES, asked.side + 16)
        lines = write_networks(folder, asked.side)
        if asked.onnx is not None:
            shutil.copy(asked.onnx, folder / "nhwc.onnx")
            lines["ONNX, another exporter's"] = ["--model", "nhwc.onnx", "--normalization", "imagenet"]
        for name, line in lines.items():
            if asked.only and name not in asked.only:
                continue
            tool, hand = [], []
            for number in range(asked.rounds):
                own = shutil.copytree(folder, Path(scratch) / f"{name}-{number}")
                hand.append(by_hand(line, own, asked.side))
                tool.append(by_tool(line, own))
            found[name] = {"line": " ".join(["dlx-deploy quantize", *line]), **compare(tool, hand)}
            sys.stderr.write(f"{name}: {hand[-1]['cpu_s']} CPU s by hand, {tool[-1]['cpu_s']} by the tool\n")
            if asked.json is not None:  # of a run that is cut off
                asked.json.write_text(json.dumps(found))
    publish({"versions": versions(DISTRIBUTIONS), "side": asked.side, "builds": found}, asked.json)


if __name__ == "__main__":
    main()
