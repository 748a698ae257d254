"""What pruning costs a trained ResNet-20 on CIFAR-10: structured, 2:4, unstructured, beside the same fine-tune alone.

    python benchmarks/compression/pruning.py --data CIFAR10 --checkpoint cifar10-resnet20-jpeg.safetensors \\
        --json benchmarks/results/compression-pruning.json

Every variant is the prune stage with the same fine-tune (distilled by the network as it came); the control removes
nothing. Each seed trains a control of its own. ``drop``: points of top-1 on all test images below the control of the
same seed, the mean over seeds; ``paired_se`` is the standard error of one seed's difference by its discordant images
(McNemar), ``seed_se`` that of the mean by the spread over seeds. ``speedup``: float32 ONNX at batch 1 on one thread of
ONNX Runtime, control and variant timed in turn. ``deflated``: bytes of the weights, compressed, as a share of the
control's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reports import finish, ratio

from dlx_deploy.config import Data, Prune
from dlx_deploy.graph.execution.latency import interleaved_latency
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.export.spec import ExportSpec
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.inference import predict_logits
from dlx_deploy.nn.weights.checkpoint import load_into
from dlx_deploy.nn.weights.checkpoint_file import read_checkpoint
from dlx_deploy.nn.weights.network import Architecture, load_model, save_model
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.stages.prune import STAGE
from dlx_deploy.tasks import prepare, task_of

SEEDS = (0, 1, 2)
TIMED = 1_000
FINE_TUNE: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 128,
    "learning_rate": 0.02,
    "shift_px": 2,
    "flip": True,
    "alpha": 0.7,
}
CONTROL = "control"
VARIANTS: dict[str, dict[str, Any]] = {
    CONTROL: {"reduce_macs": 0.0},
    "half the MACs": {"reduce_macs": 0.5},
    "2:4": {"reduce_macs": 0.0, "sparsity": "2:4"},
    "unstructured 30 %": {"reduce_macs": 0.0, "sparsity": "unstructured", "sparsity_ratio": 0.3},
    "unstructured 50 %": {"reduce_macs": 0.0, "sparsity": "unstructured"},
    "unstructured 90 %": {"reduce_macs": 0.0, "sparsity": "unstructured", "sparsity_ratio": 0.9},
}


@dataclass
class Found:
    """Of one variant: by seed, which test images it has right, and what else was seen."""

    right: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    deflated: list[int] = field(default_factory=list)
    cpu_s: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


def bring(asked: argparse.Namespace, folder: Path) -> Dataset:
    """The data set and the checkpoint as what stages read: ``folder/data`` and ``folder/model``."""
    config = Data(
        kind="imagefolder",
        path=str(asked.data),
        height=32,
        limit_train=asked.train,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    prepare(config, folder / "data", 0)
    spec, name = ImageInput(3, 32, 32), f"{asked.network}:resnet20"
    model = build_model(name, {}, 10, spec)
    load_into(model, read_checkpoint(asked.checkpoint), asked.checkpoint)
    save_model(folder / "model", model, Architecture(model=name, arguments={}, classes=10, input=spec))
    return open_data(folder / "data")


def right_answers(model: nn.Module, data: Dataset) -> npt.NDArray[np.bool_]:
    images, labels = data.split("test")
    logits = predict_logits(model, images, task_of(data).inputs.feed(data))
    return np.asarray(logits.argmax(1) == labels)


def deflated(model: nn.Module) -> int:
    weights = [p.detach().numpy().tobytes() for p in model.parameters()]
    return len(zlib.compress(b"".join(weights), 9))


def run_variant(variant: dict[str, Any], folder: Path, out: Path, seed: int, threads: int) -> dict[str, float]:
    inputs = {"data": folder / "data", "model": folder / "model", "teacher": folder / "model"}
    out.mkdir(parents=True)
    params = Prune(**FINE_TUNE, **variant)
    kept = out.with_name(f"{out.name} checkpoints")
    kept.mkdir()
    return STAGE.run(Job(params=params, inputs=inputs, out=out, seed=seed, threads=threads, checkpoints=kept))


def speedup(control: Path, variant: Path, data: Dataset, folder: Path) -> dict[str, float]:
    """How many times faster the median query of ``variant`` is, by blocks of timings."""
    header: Any = data.header
    paths = {}
    for name, path in (("control", control), ("variant", variant)):
        model, _ = load_model(path / "model")
        outputs = task_of(data).answers.outputs(ImageInput(3, 32, 32), 10)
        paths[name] = folder / f"{name}.onnx"
        export_onnx(model, paths[name], ExportSpec(32, 32, 3, tuple(header.mean), tuple(header.std), outputs, 19))
    timed = interleaved_latency(paths, data.samples("test")[:1], TIMED, threads=1)
    rounds = {name: list(timed[name].block_p50_ms) for name in paths}
    return ratio(rounds["control"], rounds["variant"])


def judged(found: Found, control: Found) -> dict[str, Any]:
    """Against the control of the same seed."""
    drops, errors = [], []
    for ours, theirs in zip(found.right, control.right, strict=True):
        difference = theirs.astype(float) - ours
        drops.append(100 * float(difference.mean()))
        errors.append(100 * float(difference.std() / np.sqrt(len(ours))))
    top1 = [round(100 * float(right.mean()), 2) for right in found.right]
    return {
        "top1": top1,
        "drop": round(float(np.mean(drops)), 3),
        "drops": [round(d, 2) for d in drops],
        "paired_se": round(float(np.mean(errors)), 3),
        "seed_se": round(float(np.std(drops, ddof=1) / np.sqrt(len(drops))), 3) if len(drops) > 1 else None,
        "deflated": round(sum(found.deflated) / sum(control.deflated), 3),
        "cpu_s": round(found.cpu_s, 1),
        **{name: round(found.metrics[name], 4) for name in ("macs_removed", "sparse_zeros") if name in found.metrics},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="an image folder: train/CLASS and test/CLASS")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--network", type=Path, default=Path("examples/cifar10/resnet20.py"))
    parser.add_argument("--train", type=int, default=10_000, help="training images, validation included")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = {name: Found() for name in VARIANTS}
    speeds: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = bring(asked, folder)
        as_it_came = right_answers(load_model(folder / "model")[0], data)
        for seed in SEEDS:
            for name, variant in VARIANTS.items():
                out, began = folder / f"{seed}-{name}", time.process_time()
                found[name].metrics = run_variant(variant, folder, out, seed, asked.threads)
                found[name].cpu_s += time.process_time() - began
                model, _ = load_model(out / "model")
                found[name].right.append(right_answers(model, data))
                found[name].deflated.append(deflated(model))
                sys.stderr.write(f"seed {seed}, {name}: {100 * found[name].right[-1].mean():.2f} %\n")
        for name in ("half the MACs", "2:4", "unstructured 50 %"):
            speeds[name] = speedup(folder / f"0-{CONTROL}", folder / f"0-{name}", data, folder)
    table: dict[str, Any] = {name: judged(found[name], found[CONTROL]) for name in VARIANTS}
    for name, speed in speeds.items():
        table[name]["speedup"] = speed
    settings = {"fine_tune": FINE_TUNE, "train_images": asked.train, "test_images": len(as_it_came), "seeds": SEEDS}
    finish({**settings, "as_it_came": round(100 * float(as_it_came.mean()), 2), "variants": table}, asked.json)


if __name__ == "__main__":
    main()
