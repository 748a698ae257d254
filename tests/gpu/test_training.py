"""Training on a GPU: every precision, resumed runs, and the network back on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dlx_deploy.config import Teacher
from dlx_deploy.nn.models.inputs import ImageInput, TokenInput
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.batches import ImageFeed, TokenFeed, TrainData
from dlx_deploy.nn.training.classes import TOP1, supervised
from dlx_deploy.nn.training.compute import seed_all, set_threads
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.loop import RunContext, train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


def images() -> TrainData:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 600)
    pixels = (rng.integers(0, 90, (600, 32, 32, 3)) + 45 * labels[:, None, None, None]).astype(np.uint8)
    return TrainData(pixels[:500], labels[:500], pixels[500:], labels[500:], ImageFeed([0.4] * 3, [0.3] * 3), 4)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_images_in_every_precision(precision: str, tmp_path: Path) -> None:
    set_threads(0)
    settings = Teacher(epochs=4, batch_size=64, precision=precision, mixup=0.2, rand_augment=1, accumulate=2)
    results = []
    for stop in (2, 0):
        seed_all(0)
        model = build_model("resnet20", {}, 4, ImageInput(3, 32, 32))

        def progress(done: float, total: float, text: str = "", stop: int = stop) -> None:
            if stop and done == stop:
                raise KeyboardInterrupt

        context = RunContext(tmp_path, progress=progress)
        if stop:
            with pytest.raises(KeyboardInterrupt):
                train(model, images(), settings, supervised(0.0), context, Hooks(TOP1))
        else:
            results.append(train(model, images(), settings, supervised(0.0), context, Hooks(TOP1)))
    assert results[0].resumed_from == 2
    assert results[0].last_score > 0.7
    assert all(p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters())


def test_texts_with_fused_attention() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    tokens = (rng.integers(1, 40, (400, 24)) + 40 * labels[:, None]).astype(np.int32)
    tokens[::3, 9:] = 0
    data = TrainData(tokens[:300], labels[:300], tokens[300:], labels[300:], TokenFeed(0), 2)
    seed_all(0)
    model = build_model("efficient_transformer", {"depth": 2}, 2, TokenInput(100, 24))
    settings = Teacher(epochs=4, optimizer="adamw", learning_rate=2e-3, precision="bf16", max_tokens=512)
    assert train(model, data, settings, supervised(0.0), RunContext(), Hooks(TOP1)).last_score > 0.9
