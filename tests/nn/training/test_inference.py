"""How many samples a network answers at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dlx_deploy.nn.training import inference
from dlx_deploy.nn.training.batches import ImageFeed

FEED = ImageFeed([0.5], [0.5])


class Wide(nn.Module):
    """A convolution of 64 channels, and one number of it; counts the rows that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 64, 3, padding=1)
        self.rows: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(images))
        return torch.relu(self.conv(images)).mean(dim=(1, 2, 3))[:, None]


def pictures(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 1), dtype=np.uint8)


def test_a_network_that_makes_much_of_a_sample_gets_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images, network = pictures(12, 32), Wide().train()
    whole = inference.predict_logits(network, images, FEED)
    assert network.rows == [12]  # small: nothing is tried out
    monkeypatch.setattr(inference, "SMALL_VALUES", 1000)
    monkeypatch.setattr(inference, "BATCH_BYTES", 5 * 64 * 32 * 32 * 4 + 17)
    network.rows.clear()
    parts = inference.predict_logits(network, images, FEED)
    assert network.rows == [1, 5, 5, 2]
    assert network.training
    assert not network.conv._forward_hooks
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_one_sample_that_is_too_large_is_answered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "SMALL_VALUES", 1)
    monkeypatch.setattr(inference, "BATCH_BYTES", 1)
    assert inference._rows_at_a_time(Wide(), pictures(3, 8), FEED) == 1
