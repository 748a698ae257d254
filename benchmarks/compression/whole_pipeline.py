"""What each stage gives on the way from a teacher to a package for ``cpu-x86_64``: top-1, size and latency on CIFAR-10.

    python benchmarks/compression/whole_pipeline.py CIFAR10 cifar10-resnet20-jpeg.safetensors --work pipeline \\
        --json benchmarks/results/whole-pipeline.json --svg benchmarks/results/whole-pipeline.svg

One build, as a user runs it: its deploy.toml and the teacher's file are in ``--work`` then, and its store, so that what
was stopped goes on. The teacher is the checkpoint's ResNet-20 asked six times for each image (averaged_views.py): none
of it is trained here. The student is the same network asked once, and begins with the same weights: ``begins_with`` is
what these say untaught. Latencies are those of the ONNX files at batch 1 on one thread of ONNX Runtime, in CPU time and
in turn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reports import finish, ratio

from dlx_deploy.graph.execution.evaluation import input_shapes
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.compute import set_threads
from dlx_deploy.nn.training.inference import predict_logits
from dlx_deploy.nn.weights.checkpoint import load_into
from dlx_deploy.nn.weights.checkpoint_file import read_checkpoint
from dlx_deploy.runtime.backends.session import open_session
from dlx_deploy.runtime.statistics.drops import drop_upper_bound
from dlx_deploy.runtime.statistics.floors import accuracy_lower_bound, accuracy_upper_bound
from dlx_deploy.tasks import task_of

TEACHER = "averaged_views.py"
STUDENT = ("resnet20", {"shortcut": "A"})
SETTINGS = """\
name = "cifar10-pipeline"
seed = 0
threads = 1
targets = ["cpu-x86_64"]

[data]
kind = "imagefolder"
path = {data}
height = 32
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
limit_train = {train}

[training]
learning_rate = 0.01
warmup_fraction = 0.1
shift_px = 0
flip = true

[teacher]
model = "averaged_views.py:averaged"
checkpoint = {checkpoint}
epochs = 0

[distill]
model = "resnet20"
arguments = {{ shortcut = "A" }}
checkpoint = {checkpoint}
learning_rate = 0.02
shift_px = 2
ema_decay = 0.99
epochs = {epochs}

[prune]
enabled = {prunes}
reduce_macs = {reduce_macs}
round_to = 16
epochs = {epochs}
learning_rate = 0.02
shift_px = 2
ema_decay = 0.99

[quantize]
effort = "balanced"
"""
TICKS_MS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BLOCK = 20
"""Runs of a network whose median is one timing of it."""


def built(folder: Path) -> dict[str, Any]:
    """The manifest of the build in ``folder``, which a gate may have stopped at its end; what is stored stays.

    Raises:
        SystemExit: it has not come as far as its gates.
    """
    command = [sys.executable, "-m", "dlx_deploy.cli", "build", "-j", "1"]
    code = subprocess.run(command, cwd=folder, stdout=sys.stderr).returncode
    newest = max((folder / ".dlx" / "builds").glob("*.json"), key=lambda path: path.stat().st_mtime)
    manifest: dict[str, Any] = json.loads(newest.read_text(encoding="utf-8"))
    if not any(step["step"] == "verify" for step in manifest["steps"]):
        raise SystemExit(code)
    return manifest


def stored(folder: Path, manifest: Mapping[str, Any], step: str) -> Path:
    """The folder in which the outputs of ``step`` lie."""
    (key,) = (one["key"] for one in manifest["steps"] if one["step"] == step)
    return folder / ".dlx" / "store" / str(key)


def as_it_came(data: Dataset, checkpoint: Path) -> float:
    """Top-1 of the checkpoint asked once, on the test images."""
    inputs = task_of(data).inputs
    name, arguments = STUDENT
    network = build_model(name, arguments, len(data.classes), inputs.spec(data))
    load_into(network, read_checkpoint(checkpoint), checkpoint)
    images, labels = data.split("test")
    return float((predict_logits(network, images, inputs.feed(data)).argmax(1) == labels).mean())


def timings(paths: Mapping[str, Path], data: Dataset, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of this thread's CPU that a network takes for one image: medians of blocks, all timed in turn.

    A thread is taken from its core in the middle of a long run more often than of a short one where others work too:
    the clock on the wall would favour what is small.
    """
    sample, runners = data.samples("test")[:1], {}
    for name, path in paths.items():
        session = open_session(path.read_bytes(), exact_qdq=False, threads=1)
        runners[name] = partial(session.run, None, sample.fitted(input_shapes(session)).feed())
    blocks: dict[str, list[float]] = {name: [] for name in paths}
    for _, (name, run) in itertools.product(range(rounds), runners.items()):
        took = []
        for _ in range(BLOCK):
            began = time.thread_time()
            run()
            took.append(1e3 * (time.thread_time() - began))
        blocks[name].append(float(np.median(took)))
    return blocks


def interval(right: int, count: int) -> list[float]:
    """The exact interval of a share of ``count`` samples at 95 %, in percent."""
    bounds = accuracy_lower_bound(right, count, 0.975), accuracy_upper_bound(right, count, 0.975)
    return [round(100 * bound, 2) for bound in bounds]


def row_of(row: Mapping[str, Any], count: int, blocks: Mapping[str, list[float]], shipped: str) -> dict[str, Any]:
    """One network on the way; the drop against the teacher is bounded as the gate does it."""
    b, c = row["evidence"]["b"], row["evidence"]["c"]
    return {
        "top1": round(100 * row["score"], 2),
        "top1_95": interval(round(row["score"] * count), count),
        "drop": round(100 * (b - c) / count, 2),
        "drop_at_most": round(100 * drop_upper_bound(b, c, count, 0.95), 2),
        "macs": row["macs"],
        "size_bytes": row["size_bytes"],
        "cpu_p50_ms": round(float(np.median(blocks[row["model"]])), 4),
        "times_faster": ratio(blocks["teacher"], blocks[row["model"]]),
        "shipped": row["model"] == shipped,
    }


def table(arguments: argparse.Namespace) -> dict[str, Any]:
    """Each network on the way, by name; the ratio of latencies with its interval over blocks of timings."""
    folder: Path = arguments.work
    manifest = built(folder)
    found = json.loads((stored(folder, manifest, "verify") / "accuracy.json").read_text(encoding="utf-8"))
    names = [row["model"] for row in found["rows"]]
    steps = {name: "quantize" if name == "quantized" else f"export-{name}" for name in names}
    data = open_data(stored(folder, manifest, "data") / "data")
    paths = {name: stored(folder, manifest, step) / "model.onnx" for name, step in steps.items()}
    blocks, count, begun = timings(paths, data, arguments.rounds), found["n"], as_it_came(data, arguments.checkpoint)
    return {
        "test_images": count,
        "begins_with": {"top1": round(100 * begun, 2), "top1_95": interval(round(begun * count), count)},
        "gates": manifest["gates"],
        "rows": {row["model"]: row_of(row, count, blocks, found["shipped"]) for row in found["rows"]},
        "seconds": {one["step"]: round(one["seconds"], 1) for one in manifest["steps"]},
    }


def drawing(found: Mapping[str, Any]) -> bytes:
    """SVG: top-1 with its interval against latency, from the teacher to what is shipped."""
    import io

    import matplotlib
    from matplotlib.figure import Figure

    rows = dict(sorted(found["rows"].items(), key=lambda one: -float(one[1]["cpu_p50_ms"])))
    with matplotlib.rc_context({"svg.hashsalt": "whole-pipeline", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        ms, top1 = [row["cpu_p50_ms"] for row in rows.values()], [row["top1"] for row in rows.values()]
        axes.plot(ms, top1, color="#b8b8b8", zorder=1)
        for name, row in rows.items():
            low, high = row["top1_95"]
            error = [[row["top1"] - low], [high - row["top1"]]]
            colour = "#d84315" if row["shipped"] else "#00695c"
            axes.errorbar(row["cpu_p50_ms"], row["top1"], yerr=error, fmt="o", color=colour, capsize=3)
            label, place = f"{name}, {row['times_faster']['value']:.1f}x", (row["cpu_p50_ms"], row["top1"])
            beside, side = ((-5, 14), "right") if row["shipped"] else ((5, 14), "left")
            axes.annotate(label, place, beside, textcoords="offset points", ha=side)
        begun = found["begins_with"]["top1"]
        axes.axhline(begun, color="#5f9ea0", linestyle=":")
        axes.annotate(
            "the network as it came, asked once", (max(ms), begun), (0, -11), textcoords="offset points", ha="right"
        )
        axes.set_xscale("log")
        axes.set_xticks(TICKS_MS, [f"{tick:g}" for tick in TICKS_MS])
        axes.minorticks_off()
        axes.set_xlim(TICKS_MS[0], TICKS_MS[-1] * 1.2)
        axes.set_xlabel("p50 at batch 1, one thread [ms of CPU]")
        axes.set_ylabel("top-1 of the test images [%]")
        axes.grid(alpha=0.3)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("checkpoint", type=Path, help="a ResNet-20 (option A) of those classes")
    parser.add_argument(
        "--work", type=Path, required=True, help="a folder that is kept: a build that was stopped goes on"
    )
    parser.add_argument("--train", type=int, default=10_000, help="training images, validation included")
    parser.add_argument("--reduce-macs", type=float, default=0.0, help="of the student; 0: it is not pruned")
    parser.add_argument("--epochs", type=int, default=2, help="of the student, and again after pruning")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    named = {key: json.dumps(str(getattr(arguments, key).resolve())) for key in ("data", "checkpoint")}
    fields = {key: getattr(arguments, key) for key in ("train", "epochs", "reduce_macs")}
    fields |= {**named, "prunes": json.dumps(arguments.reduce_macs > 0)}
    (arguments.work / "deploy.toml").write_text(SETTINGS.format(**fields), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name(TEACHER), arguments.work / TEACHER)
    set_threads(1)
    said = SETTINGS.format(**{**fields, "data": '"DATA"', "checkpoint": '"CHECKPOINT"'})
    found = {**table(arguments), "settings": said.splitlines()}
    finish(found, arguments.json)
    if arguments.svg:
        arguments.svg.write_bytes(drawing(found))


if __name__ == "__main__":
    main()
