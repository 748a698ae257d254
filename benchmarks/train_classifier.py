"""Train a classifier on an image folder with the pipeline's own engine: accuracy, images/s, data-wait share.

    python benchmarks/train_classifier.py cifar10 --model resnet20 --epochs 4 --json resnet20.json
    python benchmarks/train_classifier.py cifar10 --model resnet18 --stem small --epochs 30 --precision bf16   # a GPU

``cifar10`` holds train/CLASS and test/CLASS. The test accuracy is that of the weights after the last epoch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from reports import finish

from dlx_deploy.config import Data, Teacher
from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.batches import TrainData
from dlx_deploy.nn.training.classes import TOP1, supervised
from dlx_deploy.nn.training.compute import seed_all, set_threads, training_device
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.inference import evaluate
from dlx_deploy.nn.training.loop import RunContext, train
from dlx_deploy.tasks import prepare, task_of


def say(done: float, total: float, text: str = "") -> None:
    sys.stderr.write(f"{done:.2f}/{total:.0f} {text}\n")


def run(arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    began = time.perf_counter()
    prepare(Data(kind="imagefolder", path=str(arguments.data), height=arguments.height), out, 0)
    prepared_s = time.perf_counter() - began
    data = open_data(out)
    settings = Teacher(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        precision=arguments.precision,
        shift_px=4,
        flip=True,
    )
    set_threads(arguments.threads)
    seed_all(0)
    options = {"stem": arguments.stem} if arguments.stem else {}
    inputs = task_of(data).inputs
    model = build_model(arguments.model, options, len(data.classes), inputs.spec(data))
    began = time.perf_counter()
    train_data = TrainData.of(data, inputs.feed(data))
    report = train(model, train_data, settings, supervised(0.1), RunContext(progress=say), Hooks(TOP1))
    seconds = time.perf_counter() - began
    top1 = evaluate(model.to(training_device()), *data.split("test"), train_data.feed, TOP1)
    return {
        "model": arguments.model,
        "epochs": report.epochs,
        "precision": settings.precision,
        "train_images": data.splits["train"],
        "test_top1": round(top1, 4),
        "validation_top1": [round(x, 4) for x in report.scores],
        "losses": [round(x, 4) for x in report.losses],
        "images_per_s": round(report.samples_per_s, 1),
        "data_share": round(report.data_share, 4),
        "train_s": round(seconds, 1),
        "prepare_s": round(prepared_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--stem", default="")
    parser.add_argument("--height", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        finish(run(arguments, Path(folder) / "data"), arguments.json)


if __name__ == "__main__":
    main()
