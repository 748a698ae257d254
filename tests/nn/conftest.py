"""Small images, data sets and networks, made in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlx_deploy.config import Data
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.nn.training.batches import TrainData
from dlx_deploy.nn.training.compute import set_threads
from dlx_deploy.tasks import prepare, task_of


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    set_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[[Mapping[str, int]], Path]:
    """Writes an imagefolder: ``{"train/cat": 5, …}`` images per folder, 6 x 5 pixels, each of its own colour."""

    def make(counts: Mapping[str, int]) -> Path:
        root = tmp_path / "images"
        colours = np.random.default_rng(0)
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for i in range(count):
                pixels = np.broadcast_to(colours.integers(0, 256, 3, dtype=np.uint8), (6, 5, 3))
                Image.fromarray(np.ascontiguousarray(pixels)).save(root / folder / f"{i:03d}.png")
        return root

    return make


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The digits, split with seed 0 and 320 of them for training and validation."""
    out = tmp_path_factory.mktemp("digits")
    prepare(Data(limit_train=320, calibration_images=64), out, 0)
    return open_data(out)


@pytest.fixture(scope="session")
def train_data(digits: Dataset) -> TrainData:
    return TrainData.of(digits, task_of(digits).inputs.feed(digits))
