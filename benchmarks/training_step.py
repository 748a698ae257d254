"""The training loop against a bare, hand-written PyTorch loop: same model, batches, augmentation, precision.

    python benchmarks/training_step.py --json training-step.json

Epochs of both are timed in turn. ``ratio`` is our throughput over the bare loop's, at least 0.95 is asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reports import finish, ratio
from torch import nn
from torch.nn import functional as F

from dlx_deploy.config import Teacher
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.batches import ImageFeed, TrainData
from dlx_deploy.nn.training.classes import TOP1, supervised
from dlx_deploy.nn.training.compute import seed_all, set_threads, training_device
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.loop import RunContext, _Run

LIMIT = 0.95
CASES: dict[str, dict[str, Any]] = {
    "resnet8 8 px fp32": {"model": "resnet8", "side": 8, "images": 2048, "batch": 64, "threads": 1},
    "resnet20 32 px fp32": {"model": "resnet20", "side": 32, "images": 512, "batch": 64},
    "resnet20 32 px bf16": {"model": "resnet20", "side": 32, "images": 512, "batch": 64, "precision": "bf16"},
    "vit 32 px fp32": {"model": "vit", "side": 32, "images": 512, "batch": 64},
}
MEAN, STD = [0.5] * 3, [0.25] * 3


def images(case: dict[str, Any]) -> TrainData:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (case["images"], case["side"], case["side"], 3), np.uint8)
    labels = rng.integers(0, 10, case["images"])
    return TrainData(pixels, labels, pixels[:16], labels[:16], ImageFeed(MEAN, STD), 10)


class Bare:
    """What one would write for this model alone."""

    def __init__(self, model: nn.Module, data: TrainData, case: dict[str, Any], device: torch.device) -> None:
        self.model = model.to(device).to(memory_format=torch.channels_last).train()
        self.images = torch.from_numpy(data.inputs).to(device)
        self.labels = torch.from_numpy(data.targets).to(device)
        self.mean = torch.tensor(MEAN, device=device).view(-1, 1, 1) * 255
        self.inverse = 1 / (torch.tensor(STD, device=device).view(-1, 1, 1) * 255)
        decay = [p for p in model.parameters() if p.ndim > 1]
        rest = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": 5e-4}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
        self.batch, self.device, self.bf16 = case["batch"], device, case.get("precision") == "bf16"
        self.side = case["side"]

    def epoch(self) -> None:
        for rows in torch.split(torch.randperm(len(self.images)), self.batch):
            count = len(rows)
            ys = (torch.arange(self.side) + torch.randint(-1, 2, (count, 1))).clamp_(0, self.side - 1)
            xs = (torch.arange(self.side) + torch.randint(-1, 2, (count, 1))).clamp_(0, self.side - 1)
            rows, ys, xs = rows.to(self.device), ys.to(self.device), xs.to(self.device)
            picked = self.images[rows[:, None, None], ys[:, :, None], xs[:, None, :]]
            x = picked.permute(0, 3, 1, 2).float().sub_(self.mean).mul_(self.inverse)
            cast = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
            with cast:
                logits = self.model(x)
            loss = F.cross_entropy(logits.float(), self.labels[rows], label_smoothing=0.1)
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimizer.step()


def timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(case: dict[str, Any], rounds: int) -> dict[str, Any]:
    set_threads(case.get("threads", 0))
    data, device = images(case), training_device()
    spec = ImageInput(3, case["side"], case["side"])

    def fresh() -> nn.Module:
        seed_all(0)
        return build_model(case["model"], {}, 10, spec)

    settings = Teacher(
        epochs=rounds + 2, batch_size=case["batch"], learning_rate=0.01, precision=case.get("precision", "fp32")
    )
    ours = _Run(fresh(), data, settings, supervised(0.1), RunContext(), Hooks(TOP1))
    bare = Bare(fresh(), data, case, device)
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    for i in range(rounds + 2):
        ways = [("ours", lambda i=i: ours._epoch(i)), ("bare", bare.epoch)]
        for name, call in ways[:: 1 if i % 2 else -1]:
            seconds[name].append(timed(call))
    ours_s, bare_s = seconds["ours"][2:], seconds["bare"][2:]  # the first two warm up
    return {
        "images_per_s": {k: round(case["images"] / float(np.median(v[2:])), 1) for k, v in seconds.items()},
        "ratio": ratio(bare_s, ours_s),
        "data_share": round(ours.trace.data_share, 4),
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {name: measure(case, arguments.rounds) for name, case in CASES.items()}
    finish(
        {"limit": LIMIT, "met": all(f["ratio"]["value"] >= LIMIT for f in found.values()), "cases": found},
        arguments.json,
    )


if __name__ == "__main__":
    main()
