"""Train the networks that the benchmark of quantization reads on CIFAR-10; the MobileNetV2 is taught by a ResNet-20.

    python benchmarks/compression/train_networks.py CIFAR10 cifar10-resnet20-jpeg.safetensors OUT

``CIFAR10`` holds train/CLASS and test/CLASS. ``OUT`` gets NAME.safetensors and NAME.json (recipe, scores) of each, and
a checkpoint after each epoch, from which a run that was cut off goes on. Without ``--only`` both are trained.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from distillation import MEAN, STD, VIEWS, asked, say
from safetensors.torch import save_file

from dlx_deploy.config import Data, Distill
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.batches import TrainData
from dlx_deploy.nn.training.classes import TOP1, class_blend, supervised
from dlx_deploy.nn.training.compute import seed_all, set_threads
from dlx_deploy.nn.training.distillation import Distillation
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.inference import predict_logits
from dlx_deploy.nn.training.loop import RunContext, train
from dlx_deploy.nn.training.losses import distilled_from
from dlx_deploy.tasks import prepare, task_of

VIT = {"patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 2, "mlp_ratio": 2.0}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "mobilenet": (f"{Path(__file__).with_name('networks.py')}:mobilenet", {}),
    "vit": ("timm:vit_tiny_patch16_224", VIT),
}
"""What the registry of models calls them, and their arguments."""
RECIPES: dict[str, dict[str, Any]] = {
    "mobilenet": {"epochs": 5, "batch_size": 128, "learning_rate": 0.15, "weight_decay": 1e-4, "flip": True},
    "vit": {
        "epochs": 4,
        "batch_size": 128,
        "optimizer": "adamw",
        "learning_rate": 2e-3,
        "weight_decay": 0.05,
        "clip_norm": 1.0,
        "flip": True,
    },
}
TAUGHT = {"mobilenet"}
"""The others learn from the labels alone."""


def trained(name: str, data: Dataset, teacher: Path, out: Path) -> dict[str, Any]:
    """How the network ``name`` went, whose weights are in ``out`` then."""
    inputs, settings = task_of(data).inputs, Distill(shift_px=VIEWS.shift_px, **RECIPES[name])
    began = time.process_time()
    answers, _, tested = asked(data, teacher) if name in TAUGHT else (None, None, None)
    seed_all(0)
    model, arguments = NETWORKS[name]
    network = build_model(model, arguments, len(data.classes), inputs.spec(data))
    learned = TrainData.of(data, inputs.feed(data))
    loss = supervised(0.1)
    if answers is not None:
        loss = distilled_from(answers, class_blend(Distillation(4.0, 0.9)), len(learned.inputs))
    context = RunContext(checkpoints=out / f"{name}-checkpoints", progress=watched(name))
    report = train(network, learned, settings, loss, context, Hooks(TOP1))
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(weights, out / f"{name}.safetensors")
    images, labels = data.split("test")
    right = (predict_logits(network, images, learned.feed).argmax(1) == labels).mean()
    return {
        "network": name,
        "model": model.rpartition("/")[2],
        "arguments": arguments,
        "recipe": RECIPES[name],
        "parameters": sum(p.numel() for p in network.parameters()),
        "teacher_test_top1": tested,
        "test_top1": round(float(right), 4),
        "validation_top1": [round(x, 4) for x in report.scores],
        "losses": [round(x, 4) for x in report.losses],
        "train_images": data.splits["train"],
        "resumed_from_epoch": report.resumed_from,
        "cpu_s": round(time.process_time() - began),
    }


def watched(name: str) -> Any:
    def progress(done: float, total: float, text: str = "") -> None:
        if text:
            say(f"{name}: {done:.2f} of {total:.0f} {text}")

    return progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("teacher", type=Path, help="a ResNet-20 (option-A shortcuts) of those classes")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=sorted(NETWORKS), action="append")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    set_threads(arguments.threads)
    given = Data(kind="imagefolder", path=str(arguments.data), height=32, mean=MEAN, std=STD, validation_fraction=0.02)
    with tempfile.TemporaryDirectory() as folder:
        prepare(given, Path(folder), 0)
        data = open_data(Path(folder))
        for name in arguments.only or list(NETWORKS):
            found = trained(name, data, arguments.teacher, arguments.out)
            text = json.dumps(found, indent=1, sort_keys=True) + "\n"
            (arguments.out / f"{name}.json").write_text(text, encoding="utf-8")
            sys.stdout.write(text)


if __name__ == "__main__":
    main()
