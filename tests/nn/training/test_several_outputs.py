"""A network of two outputs learns, is watched, and teaches another."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlx_deploy.config import Distill, Training
from dlx_deploy.nn.training.batches import Batch, TrainData
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.inference import predict
from dlx_deploy.nn.training.loop import RunContext, train
from dlx_deploy.nn.training.losses import distilled

Pair = tuple[Tensor, Tensor]


class Twins(nn.Module):
    """Logits [N, 10], and how bright an image is [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(32), nn.ReLU())
        self.kind, self.light = nn.Linear(32, 10), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Pair:
        features = self.body(x)
        return self.kind(features), self.light(features)


class BothRight:
    """The share of images whose class is right, and that answer with finite light."""

    name, title = "both", "both"

    def total(self, outputs: Any, targets: Any) -> Any:
        logits, light = outputs
        assert light.shape == (len(targets), 1)
        return np.asarray(((logits.argmax(1) == targets) & np.isfinite(light[:, 0])).sum(), dtype=np.float64)

    def score(self, total: Any, count: float) -> float:
        return float(total) / count


def twins(data: TrainData) -> Twins:
    torch.manual_seed(0)
    model = Twins()
    model(data.feed(torch.from_numpy(np.array(data.inputs[:2]))))
    return model


def test_two_outputs_are_trained_watched_and_taught(train_data: TrainData) -> None:
    def loss(answer: Pair, batch: Batch) -> Tensor:
        logits, light = answer
        brightness = batch.inputs.mean(dim=(1, 2, 3))
        return F.cross_entropy(logits, batch.targets, reduction="none") + (light[:, 0] - brightness) ** 2

    teacher, hooks = twins(train_data), Hooks(metric=BothRight())
    report = train(teacher, train_data, Training(epochs=4, batch_size=32), loss, RunContext(), hooks)
    assert report.scores[-1] > 0.5
    logits, light = predict(teacher, train_data.validation_inputs, train_data.feed)
    assert (logits.shape[1], light.shape[1], logits.dtype) == (10, 1, np.float32)
    seen: list[int] = []

    def blend(student: Pair, taught: Pair, batch: Batch) -> Tensor:
        seen.append(len(batch.rows))
        return sum(((a - b) ** 2).mean(dim=1) for a, b in zip(student, taught, strict=True))  # type: ignore[return-value]

    student = twins(train_data)
    again = train(student, train_data, Distill(epochs=4, batch_size=32), distilled(teacher, blend), RunContext(), hooks)
    assert again.scores[-1] > 0.5
    assert seen
