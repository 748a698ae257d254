"""Losses and the metric of networks that answer for each pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dlx_deploy.nn.training.batches import Batch
from dlx_deploy.nn.training.dense import (
    MeanIou,
    dice_loss,
    pixel_blend,
    pixel_cross_entropy,
    pixel_distillation,
    supervised_pixels,
)
from dlx_deploy.nn.training.distillation import Distillation

K = 4


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(3, K, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def masks() -> torch.Tensor:
    masks = torch.randint(0, K, (3, 5, 6), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    masks[0, :2] = 255
    masks[2] = 255
    return masks


def test_cross_entropy_is_the_mean_over_pixels_that_count(logits: torch.Tensor, masks: torch.Tensor) -> None:
    losses = pixel_cross_entropy(logits, masks, 0.1)
    for i in (0, 1):
        kept = masks[i] != 255
        flat, labels = logits[i].movedim(0, -1)[kept], masks[i][kept].long()
        assert losses[i].item() == pytest.approx(F.cross_entropy(flat, labels, label_smoothing=0.1).item(), rel=1e-5)
    assert losses[2] == 0


def test_what_is_ignored_gives_no_gradient(logits: torch.Tensor, masks: torch.Tensor) -> None:
    logits.requires_grad_(True)
    teacher = torch.randn(3, K, 5, 6, generator=torch.Generator().manual_seed(2))
    batch = Batch(torch.empty(3), masks, torch.arange(3))
    pixel_blend(Distillation(2.0, 0.5), True)(logits, teacher, batch).sum().backward()
    gradient = logits.grad
    assert gradient is not None
    ignored = (masks == 255).unsqueeze(1).expand_as(gradient)
    assert (gradient[ignored] == 0).all()
    assert (gradient[~ignored] != 0).any()


def test_dice_is_one_minus_the_overlap() -> None:
    masks = torch.tensor([[[0, 0, 1, 255]]], dtype=torch.uint8)
    sure = torch.tensor([[[[20.0, 20, -20, 0]], [[-20.0, -20, 20, 0]], [[-20.0, -20, -20, 9]]]])
    # Neither the ignored pixel nor a class that is not there counts.
    assert dice_loss(sure, masks).item() == pytest.approx(0, abs=1e-6)
    wrong = sure[:, [1, 0, 2]]
    expected = 1 - np.mean([(2 * 0 + 1) / (1 + 2 + 1), (2 * 0 + 1) / (2 + 1 + 1)])
    assert dice_loss(wrong, masks).item() == pytest.approx(expected, abs=1e-5)


def test_distillation_is_hintons_for_each_pixel(logits: torch.Tensor, masks: torch.Tensor) -> None:
    teacher = torch.randn(3, K, 5, 6, generator=torch.Generator().manual_seed(2))
    seen = pixel_distillation(logits, teacher, masks, Distillation(3.0, 1.0))
    kept = masks[0] != 255
    p, q = (F.log_softmax(x[0].movedim(0, -1)[kept] / 3, dim=1) for x in (teacher, logits))
    assert seen[0].item() == pytest.approx(9 * (p.exp() * (p - q)).sum(1).mean().item(), rel=1e-5)
    assert pixel_distillation(logits, logits, masks, Distillation(3.0, 1.0)).abs().max() < 1e-6
    assert seen[2] == 0


def test_a_blend_is_of_both(logits: torch.Tensor, masks: torch.Tensor) -> None:
    teacher, batch = torch.zeros_like(logits), Batch(torch.empty(3), masks, torch.arange(3))
    recipe, hard = Distillation(2.0, 0.25), pixel_cross_entropy(logits, masks)
    soft = pixel_distillation(logits, teacher, masks, recipe)
    assert torch.allclose(pixel_blend(recipe, False)(logits, teacher, batch), 0.25 * soft + 0.75 * hard)
    both = supervised_pixels(0.0, True)(logits, batch)
    assert torch.allclose(both, hard + dice_loss(logits, masks))


def test_mean_iou_adds_up_over_batches(logits: torch.Tensor, masks: torch.Tensor) -> None:
    metric, outputs, targets = MeanIou(), logits.numpy(), masks.numpy()
    whole = metric.total(outputs, targets)
    parts = sum(metric.total(outputs[i : i + 1], targets[i : i + 1]) for i in range(3))
    assert (whole == parts).all()
    answers, counted = outputs.argmax(1), targets != 255
    by_class = [
        (((answers == k) & (targets == k) & counted).sum()) / ((((answers == k) | (targets == k)) & counted).sum())
        for k in range(K)
    ]
    assert metric.score(whole, 3) == pytest.approx(np.mean(by_class))
