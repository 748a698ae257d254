from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, OneCycleLR

from dlx_deploy.config import Teacher
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.training.schedules import check_schedule, learning_rate


def torchs(scheduler: object, optimizer: SGD, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()  # type: ignore[attr-defined]
    return rates


@given(st.integers(20, 200), st.floats(0.1, 0.6), st.floats(1e-3, 1.0))
def test_one_cycle_is_torchs(steps: int, warmup: float, peak: float) -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    scheduler = OneCycleLR(optimizer, peak, total_steps=steps, pct_start=warmup, cycle_momentum=False)
    settings = Teacher(schedule="one-cycle", learning_rate=peak, warmup_fraction=warmup)
    ours = [learning_rate(i, steps, settings) for i in range(steps)]
    assert ours == pytest.approx([*torchs(scheduler, optimizer, steps - 1), ours[-1]], rel=1e-6, abs=1e-12)
    assert ours[-1] == pytest.approx(peak / 25 / 1e4)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(4, 9), st.integers(3, 20))
def test_warm_restarts_are_torchs(first: int, factor: int, epochs: int, per_epoch: int) -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = CosineAnnealingWarmRestarts(optimizer, first * per_epoch, factor)
    settings = Teacher(
        schedule="cosine-restarts", learning_rate=0.3, restart_epochs=first, restart_factor=factor, epochs=epochs
    )
    steps = epochs * per_epoch
    ours = [learning_rate(i, steps, settings) for i in range(steps)]
    assert ours == pytest.approx(torchs(scheduler, optimizer, steps), abs=1e-9)
    assert ours.count(0.3) >= (2 if first < epochs else 1)


@pytest.mark.parametrize("restart", [0, 5])
def test_a_first_cycle_longer_than_training(restart: int) -> None:
    settings = Teacher(schedule="cosine-restarts", epochs=4, restart_epochs=restart)
    message = rf"teacher\.restart_epochs is {restart} and teacher\.epochs is 4; .* not longer than training"
    with pytest.raises(ConfigError, match=message):
        check_schedule(settings)
    check_schedule(Teacher(schedule="cosine-restarts", epochs=4, restart_epochs=4))
    check_schedule(Teacher(schedule="cosine-restarts", epochs=0))
