"""Threads and seeds of the networks whose graphs are looked at."""

from __future__ import annotations

import pytest
import torch

from dlx_deploy.nn.training.compute import set_threads


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    set_threads(1)
    torch.manual_seed(0)
