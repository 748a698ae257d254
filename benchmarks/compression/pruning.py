"""What pruning costs a trained ResNet-20 on CIFAR-10: structured, 2:4, unstructured, beside the same fine-tune alone.

    python benchmarks/compression/pruning.py --data CIFAR10 --checkpoint cifar10-resnet20-jpeg.safetensors \\
        --json benchmarks/results/compression-pruning.json

Every variant is the prune stage, distilled by the network as it came, whose answers are kept; a control is fine-tuned
as long and loses nothing. Where channels go the fine-tune is longer than where zeros come: each has its control, one a
seed. What is removed is made up for by ``prune.reconstruct``. Half of the test images chose the recipe; judged is by
the others. ``drop``: points of top-1 on these below the control of the same seed, the mean over seeds; ``paired_se`` is
the standard error of one seed's difference by its discordant images (McNemar), ``seed_se`` that of the mean by the
spread over seeds. ``speedup``: float32 ONNX at batch 1 on one thread of ONNX Runtime, control and variant timed in
turn. ``deflated``: bytes of the weights, compressed, as a share of the control's. ``--parts`` keeps each run's answers,
so that what was stopped goes on; with ``--no-run`` those that are there make the table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
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
from dlx_deploy.nn.training.views import Views
from dlx_deploy.nn.weights.checkpoint import load_into
from dlx_deploy.nn.weights.checkpoint_file import read_checkpoint
from dlx_deploy.nn.weights.network import Architecture, load_model, save_model
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.runtime.timing.sampling import BUILD_PACE, Sampling
from dlx_deploy.stages.logits import STAGE as LOGITS
from dlx_deploy.stages.prune import STAGE
from dlx_deploy.tasks import prepare, task_of

SEEDS = (0, 1, 2)
TIMED = 1_000
VIEWS = Views(flip=True)
FINE_TUNE: dict[str, Any] = {"batch_size": 128, "shift_px": 0, "flip": True, "alpha": 0.7}


class Variant(NamedTuple):
    """A ``[prune]`` table, and the name of its control; ``None``: it is one."""

    prune: dict[str, Any]
    control: str | None = None


LONGER, SHORTER = "control of channels", "control of zeros"


def variants_of(channels: dict[str, Any], zeros: dict[str, Any]) -> dict[str, Variant]:
    """By name; controls before what is held against them."""
    unstructured = {**zeros, "reduce_macs": 0.0, "reconstruct": True, "sparsity": "unstructured"}
    return {
        LONGER: Variant({**channels, "reduce_macs": 0.0}),
        "half the MACs": Variant({**channels, "reduce_macs": 0.5, "reconstruct": True}, LONGER),
        SHORTER: Variant({**zeros, "reduce_macs": 0.0}),
        "2:4": Variant({**zeros, "reduce_macs": 0.0, "reconstruct": True, "sparsity": "2:4"}, SHORTER),
        "unstructured 50 %": Variant(unstructured, SHORTER),
        "unstructured 90 %": Variant({**unstructured, "sparsity_ratio": 0.9}, SHORTER),
    }


TIMES = ("half the MACs", "2:4", "unstructured 50 %")


class Run(msgspec.Struct, frozen=True):
    """Of one seed of a variant: which of the judged images it has right, and what else was seen."""

    right: list[bool]
    deflated: int
    cpu_s: float
    metrics: dict[str, float]


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
    """Of every second test image."""
    images, labels = data.split("test")
    logits = predict_logits(model, images[1::2], task_of(data).inputs.feed(data))
    return np.asarray(logits.argmax(1) == labels[1::2])


def deflated(model: nn.Module) -> int:
    weights = [p.detach().numpy().tobytes() for p in model.parameters()]
    return len(zlib.compress(b"".join(weights), 9))


def part(parts: Path, seed: int, name: str) -> Path:
    """Where the network of a run lies."""
    return parts / f"{seed}-{name.translate(str.maketrans(' ', '-', ':%'))}"


def run_variant(name: str, prune: dict[str, Any], folder: Path, parts: Path, seed: int) -> Run:
    """Of ``parts``, or made now and kept there: ``SEED-NAME.json``, and the network beside it."""
    kept = part(parts, seed, name).with_suffix(".json")
    if kept.exists():
        return msgspec.json.decode(kept.read_bytes(), type=Run)
    out, checkpoints = kept.with_suffix(""), kept.with_suffix(".epochs")
    for path in (out, checkpoints):
        path.mkdir(parents=True, exist_ok=True)
    inputs = {"data": folder / "data", "model": folder / "model", "logits": folder / "logits.npy"}
    job = Job(
        params=Prune(**prune),
        inputs=inputs,
        out=out,
        seed=seed,
        threads=1,
        checkpoints=checkpoints,
    )
    began = time.process_time()
    metrics = STAGE.run(job)
    cpu_s, (model, _) = time.process_time() - began, load_model(out / "model")
    right = right_answers(model, open_data(folder / "data")).tolist()
    run = Run(right, deflated(model), cpu_s, metrics)
    kept.write_bytes(msgspec.json.encode(run))
    sys.stderr.write(f"seed {seed}, {name}: {100 * np.mean(right):.2f} %, {cpu_s:.0f} CPU seconds\n")
    return run


def speedup(control: Path, variant: Path, data: Dataset, folder: Path) -> dict[str, float]:
    """How many times faster the median query of ``variant`` is, by blocks of timings."""
    header: Any = data.header
    paths = {}
    for name, path in (("control", control), ("variant", variant)):
        model, _ = load_model(path / "model")
        outputs = task_of(data).answers.outputs(ImageInput(3, 32, 32), 10)
        paths[name] = folder / f"{name}.onnx"
        export_onnx(model, paths[name], ExportSpec(32, 32, 3, tuple(header.mean), tuple(header.std), outputs, 19))
    timed = interleaved_latency(paths, data.samples("test")[:1], Sampling(TIMED, pace=BUILD_PACE), threads=1).latencies
    rounds = {name: list(timed[name].block_p50_ms) for name in paths}
    return ratio(rounds["control"], rounds["variant"])


def judged(found: Sequence[Run], control: Sequence[Run]) -> dict[str, Any]:
    """Against the control of the same seed."""
    drops, errors = [], []
    for ours, theirs in zip(found, control, strict=False):  # the last seed may not be finished
        difference = np.array(theirs.right, dtype=float) - ours.right
        drops.append(100 * float(difference.mean()))
        errors.append(100 * float(difference.std() / np.sqrt(len(difference))))
    removed: dict[str, float] = {
        key: round(found[0].metrics[key], 4) for key in ("macs_removed", "sparse_zeros") if key in found[0].metrics
    }
    return {
        "top1": [round(100 * float(np.mean(run.right)), 2) for run in found],
        "drop": round(float(np.mean(drops)), 3),
        "drops": [round(d, 2) for d in drops],
        "paired_se": round(float(np.mean(errors)), 3),
        "seed_se": round(float(np.std(drops, ddof=1) / np.sqrt(len(drops))), 3) if len(drops) > 1 else None,
        "deflated": round(sum(run.deflated for run in found) / sum(run.deflated for run in control[: len(found)]), 3),
        "cpu_s": round(sum(run.cpu_s for run in found), 1),
        **removed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="an image folder: train/CLASS and test/CLASS")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--network", type=Path, default=Path("examples/cifar10/resnet20.py"))
    parser.add_argument("--train", type=int, default=12_000, help="training images, validation included")
    parser.add_argument("--epochs", type=int, nargs=2, default=(2, 1), help="where channels go, where zeros come")
    parser.add_argument("--parts", type=Path, help="where runs are kept; default: nowhere")
    parser.add_argument("--no-run", action="store_true", help="the table of what is there")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    channels = {**FINE_TUNE, "epochs": asked.epochs[0], "learning_rate": 0.05}
    zeros = {**FINE_TUNE, "epochs": asked.epochs[1], "learning_rate": 0.02}
    variants = variants_of(channels, zeros)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parts = asked.parts or folder / "parts"
        data = bring(asked, folder)
        if not asked.no_run:
            LOGITS.run(
                Job(params=VIEWS, inputs={"data": folder / "data", "teacher": folder / "model"}, out=folder, threads=1)
            )
        as_it_came = right_answers(load_model(folder / "model")[0], data)
        found: dict[str, list[Run]] = {name: [] for name in variants}
        for seed, name in product(SEEDS, variants):
            there = part(parts, seed, name).with_suffix(".json").exists()
            if there or not asked.no_run:
                found[name].append(run_variant(name, variants[name].prune, folder, parts, seed))
        table: dict[str, Any] = {n: judged(runs, found[variants[n].control or n]) for n, runs in found.items() if runs}
        for name in set(TIMES) & table.keys():
            control, variant = (part(parts, SEEDS[0], n) for n in (variants[name].control or name, name))
            table[name]["speedup"] = speedup(control, variant, data, folder)
    settings = {"channels": channels, "zeros": zeros, "train_images": asked.train, "test_images": len(as_it_came)}
    finish({**settings, "as_it_came": round(100 * float(as_it_came.mean()), 2), "variants": table}, asked.json)


if __name__ == "__main__":
    main()
