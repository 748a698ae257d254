"""What each stage gives on the way from a teacher to a package for ``cpu-x86_64``: top-1, size and latency on CIFAR-10.

    python benchmarks/compression/whole_pipeline.py CIFAR10 cifar10-resnet20-jpeg.safetensors --work pipeline \\
        --json benchmarks/results/whole-pipeline.json --svg benchmarks/results/whole-pipeline.svg

One build, as a user runs it: its deploy.toml and the teacher's file are in ``--work`` then, and its store, so that what
was stopped goes on. The teacher is the checkpoint's ResNet-20 asked six times for each image (averaged_views.py): none
of it is trained here. The student is the same network asked once, and begins with the same weights: ``begins_with`` is
what these say untaught. Latencies are those of the ONNX files at batch 1 on one thread of ONNX Runtime, timed in turn.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reports import finish, ratio

from dlx_deploy.graph.execution.latency import interleaved_latency
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.compute import set_threads
from dlx_deploy.nn.training.inference import predict_logits
from dlx_deploy.nn.weights.checkpoint import load_into
from dlx_deploy.nn.weights.checkpoint_file import read_checkpoint
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
epochs = {epochs}

[prune]
reduce_macs = 0.15
round_to = 16
epochs = {epochs}
learning_rate = 0.01
"""
FINISHED = (0, 3, 6)
"""Exit codes of a build that has a table: done, a gate failed, undecided."""
Z = 1.96
"""Of an interval at 95 %."""


def built(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the build in ``folder`` says of its one target, and its manifest; what is stored is not done again."""
    command = [sys.executable, "-m", "dlx_deploy.cli", "build", "-j", "1"]
    subprocess.run(command, cwd=folder, stdout=sys.stderr)  # what it did is said once more, in JSON
    done = subprocess.run([*command, "--json"], cwd=folder, stdout=subprocess.PIPE, text=True)
    if done.returncode not in FINISHED:
        raise SystemExit(done.returncode)
    (summary,) = json.loads(done.stdout)
    manifest: dict[str, Any] = json.loads(next((folder / "dist").glob("*.manifest.json")).read_text(encoding="utf-8"))
    return summary, manifest


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


def wilson(share: float, count: int) -> list[float]:
    """The interval of a share of ``count`` samples, in percent."""
    middle, width = share + Z**2 / (2 * count), Z * np.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return [round(100 * float(x) / (1 + Z**2 / count), 2) for x in (middle - width, middle + width)]


def table(arguments: argparse.Namespace) -> dict[str, Any]:
    """Each network on the way, by name; the ratio of latencies with its interval over blocks of timings."""
    folder: Path = arguments.work
    summary, manifest = built(folder)
    rows = {row["model"]: row for row in summary["results"]["rows"]}
    steps = {name: "quantize" if name == "quantized" else f"export-{name}" for name in rows}
    paths = {name: stored(folder, manifest, step) / "model.onnx" for name, step in steps.items()}
    data = open_data(stored(folder, manifest, "data") / "data")
    timed = interleaved_latency(paths, data.samples("test")[:1], arguments.rounds, threads=1)
    count = summary["results"]["test_samples"]
    blocks = {name: list(found.block_p50_ms) for name, found in timed.items()}
    begun = as_it_came(data, arguments.checkpoint)
    return {
        "test_images": count,
        "begins_with": {"top1": round(100 * begun, 2), "top1_95": wilson(begun, count)},
        "gates": summary["gates"],
        "package_bytes": summary["size_bytes"],
        "rows": {
            name: {
                "top1": round(100 * row["top1"], 2),
                "top1_95": wilson(row["top1"], count),
                "drop": round(100 * row["drop"], 2),
                "drop_at_most": round(100 * row["drop_upper"], 2),
                "macs": row["macs"],
                "size_bytes": row["size_bytes"],
                "p50_ms": round(timed[name].p50_ms, 4),
                "times_faster": ratio(blocks["teacher"], blocks[name]),
                "shipped": row["shipped"],
            }
            for name, row in rows.items()
        },
        "seconds": {one["step"]: round(one["seconds"], 1) for one in manifest["steps"]},
    }


def drawing(found: Mapping[str, Any]) -> bytes:
    """SVG: top-1 with its interval against latency, from the teacher to what is shipped."""
    import io

    import matplotlib
    from matplotlib.figure import Figure

    rows = found["rows"]
    with matplotlib.rc_context({"svg.hashsalt": "whole-pipeline", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        ms, top1 = [row["p50_ms"] for row in rows.values()], [row["top1"] for row in rows.values()]
        axes.plot(ms, top1, color="#b8b8b8", zorder=1)
        for name, row in rows.items():
            low, high = row["top1_95"]
            error = [[row["top1"] - low], [high - row["top1"]]]
            colour = "#d84315" if row["shipped"] else "#00695c"
            axes.errorbar(row["p50_ms"], row["top1"], yerror=error, fmt="o", color=colour, capsize=3)
            label = f"{name}, {row['times_faster']['value']:.1f}x"
            axes.annotate(label, (row["p50_ms"], row["top1"]), (7, 5), textcoords="offset points")
        begun = found["begins_with"]["top1"]
        axes.axhline(begun, color="#5f9ea0", linestyle=":")
        axes.annotate(
            "the network as it came, asked once", (max(ms), begun), (0, -11), textcoords="offset points", ha="right"
        )
        axes.set_xscale("log")
        axes.set_xlabel("p50 at batch 1, one thread [ms]")
        axes.set_ylabel("top-1 of the test images [%]")
        axes.grid(alpha=0.3)
        axes.margins(x=0.15)
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
    parser.add_argument("--epochs", type=int, default=3, help="of the student, and again after pruning")
    parser.add_argument("--rounds", type=int, default=600)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    named = {key: json.dumps(str(getattr(arguments, key).resolve())) for key in ("data", "checkpoint")}
    text = SETTINGS.format(**named, train=arguments.train, epochs=arguments.epochs)
    (arguments.work / "deploy.toml").write_text(text, encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name(TEACHER), arguments.work / TEACHER)
    set_threads(1)
    found = {**table(arguments), "train_images": arguments.train, "epochs": arguments.epochs}
    finish(found, arguments.json)
    if arguments.svg:
        arguments.svg.write_bytes(drawing(found))


if __name__ == "__main__":
    main()
