"""What a student gains by each way of distillation, beside the same student without a teacher: paired, several seeds.

    python benchmarks/compression/distillation.py cifar10 resnet20.safetensors --work kept --json distillation.json

``cifar10`` holds train/CLASS and test/CLASS, the second file a trained ResNet-20 (option-A shortcuts) of those classes
in their order. The teacher is asked once for each image and its mirror image; every method has the same batches,
learning rate and initial weights. Nothing is tuned: losses are the papers' for CIFAR (docs/distillation.md), the rate
is theirs for the size of a batch, and as there no gradient is clipped. A run that was stopped goes on: ``--work`` holds
the answers of each student that is finished.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reports import finish

from dlx_deploy.config import Data, Distill
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.augment import seen_in
from dlx_deploy.nn.training.batches import TrainData
from dlx_deploy.nn.training.classes import TOP1, class_blend
from dlx_deploy.nn.training.compute import seed_all, set_threads
from dlx_deploy.nn.training.distillation import Distillation
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.inference import predict_logits
from dlx_deploy.nn.training.loop import RunContext, train
from dlx_deploy.nn.training.losses import distilled_from
from dlx_deploy.nn.training.views import Views
from dlx_deploy.nn.weights.checkpoint import load_into, read_checkpoint
from dlx_deploy.tasks import prepare, task_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the teacher's weights were trained with."""
METHODS = {
    "control": (Distillation(4.0, 0.0), 1.0),
    "hinton": (Distillation(4.0, 0.9), 1.0),
    "standardized": (Distillation(2.0, 9 / 9.1, standardize=True), 9.1),
    "dkd": (Distillation(4.0, 0.5, "dkd", 2.0, warmup=20 / 240), 2.0),
    "dist": (Distillation(4.0, 2 / 3, "dist", 1.0), 3.0),
}
"""Each with what our loss is multiplied by to be its paper's: 0.1 CE + 9 KL, CE + DKD, CE + 2 inter + 2 intra."""
VIEWS = Views(shift_px=0, flip=True)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def asked(data: Dataset, checkpoint: Path) -> tuple[npt.NDArray[np.float32], float, float]:
    """The teacher's logits float32[views * N, classes]; how often it is right on what it teaches and on the test."""
    inputs = task_of(data).inputs
    teacher = build_model("resnet20", {"shortcut": "A"}, len(data.classes), inputs.spec(data))
    load_into(teacher, read_checkpoint(checkpoint), checkpoint)
    images, labels = data.split("train")
    test, truth = data.split("test")
    feed = inputs.feed(data)
    answers = np.concatenate([predict_logits(teacher, images, seen_in(feed, VIEWS, i)) for i in range(VIEWS.count)])
    right = (predict_logits(teacher, test, feed).argmax(1) == truth).mean()
    return answers, float((answers.argmax(1) == np.tile(labels, VIEWS.count)).mean()), float(right)


def trained(
    data: Dataset, answers: npt.NDArray[np.float32], recipe: Distillation, seed: int, settings: Distill
) -> npt.NDArray[np.float32]:
    """The test logits of a ResNet-8 after the last epoch."""
    inputs = task_of(data).inputs
    seed_all(seed)
    student = build_model("resnet8", {}, len(data.classes), inputs.spec(data))
    learned = TrainData.of(data, inputs.feed(data))
    loss = distilled_from(answers, class_blend(recipe), len(learned.inputs))
    train(student, learned, settings, loss, RunContext(seed=seed), Hooks(TOP1))
    return predict_logits(student, data.split("test")[0], learned.feed)


def multiplied(settings: Distill, scale: float) -> Distill:
    """As if the loss were multiplied by ``scale``: SGD's updates are the same."""
    decay, clip = settings.weight_decay / scale, settings.clip_norm / scale
    return replace(settings, learning_rate=settings.learning_rate * scale, weight_decay=decay, clip_norm=clip)


def nll(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]).mean())


def gain(ours: list[npt.NDArray[np.bool_]], theirs: list[npt.NDArray[np.bool_]]) -> dict[str, Any]:
    """Points by which ``ours`` are more often right: a mean over seeds, and its standard errors.

    ``se_images``: paired over the test images of these networks. ``se_seeds``: of the seeds' own differences.
    """
    differences = [100 * (a.astype(float) - b) for a, b in zip(ours, theirs, strict=True)]
    of_seeds = [float(d.mean()) for d in differences]
    mean = np.mean(differences, axis=0)
    return {
        "points": round(float(np.mean(of_seeds)), 2),
        "se_images": round(float(mean.std(ddof=1)) / math.sqrt(len(mean)), 2),
        "se_seeds": round(float(np.std(of_seeds, ddof=1)) / math.sqrt(len(of_seeds)), 2) if len(of_seeds) > 1 else None,
        "of_seeds": [round(x, 2) for x in of_seeds],
    }


def run(arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    limits = {"limit_train": arguments.train, "limit_test": arguments.test, "validation_fraction": 0.02}
    given = Data(kind="imagefolder", path=str(arguments.data), height=32, mean=MEAN, std=STD, **limits)
    prepare(given, out, 0)
    data = open_data(out)
    set_threads(arguments.threads)
    began = time.process_time()
    answers, taught, tested = asked(data, arguments.teacher)
    say(f"teacher: {taught:.4f} on what it teaches, {tested:.4f} on the test; {time.process_time() - began:.0f} CPU-s")
    settings = Distill(epochs=arguments.epochs, batch_size=128, learning_rate=0.1, clip_norm=0.0, shift_px=0, flip=True)
    truth = np.asarray(data.split("test")[1])
    right: dict[str, list[npt.NDArray[np.bool_]]] = {name: [] for name in arguments.methods}
    scores: dict[str, list[float]] = {name: [] for name in arguments.methods}
    for seed, name in itertools.product(range(arguments.seeds), arguments.methods):
        recipe, scale = METHODS[name]
        kept = arguments.work / f"{name}-{seed}-{arguments.epochs}x{len(data.split('train')[1])}-{len(truth)}.npy"
        if not kept.is_file():
            np.save(kept, trained(data, answers, recipe, seed, multiplied(settings, scale)))
        logits = np.load(kept)
        right[name].append(logits.argmax(1) == truth)
        scores[name].append(nll(logits, truth))
        say(f"seed {seed} {name}: {right[name][-1].mean():.4f}, NLL {scores[name][-1]:.3f}")
    return {
        "teacher_top1": {"train_views": round(taught, 4), "test": round(tested, 4)},
        "train_images": data.splits["train"],
        "test_images": len(truth),
        "epochs": arguments.epochs,
        "seeds": arguments.seeds,
        "cpu_s": round(time.process_time() - began),
        "methods": {
            name: {
                "top1": [round(float(x.mean()), 4) for x in right[name]],
                "nll": [round(x, 3) for x in scores[name]],
                **{
                    f"over_{other}": gain(right[name], right[other])
                    for other in ("control", "hinton")
                    if other in right
                },
            }
            for name in right
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("teacher", type=Path, help="a ResNet-20 of those classes")
    parser.add_argument("--train", type=int, default=3000)
    parser.add_argument("--test", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--work", type=Path, help="a folder that is kept: a run that was stopped goes on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments.work = arguments.work or Path(folder)
        arguments.work.mkdir(parents=True, exist_ok=True)
        finish(run(arguments, Path(folder) / "data"), arguments.json)


if __name__ == "__main__":
    main()
