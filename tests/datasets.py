"""Data sets without files, for the tests of stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.data.dataset import Dataset
from dlx_deploy.nn.data.headers import ImageHeader, TextHeader

SPLITS = ("train", "calibration", "validation", "test")


@dataclass(frozen=True)
class Held(Dataset):
    """A data set whose splits are all the same, or that has ``only`` one."""

    inputs: Any = None
    labels: Any = None
    only: str = ""

    def samples(self, name: str) -> Samples:
        assert name == self.only or not self.only, f"the {name} split is not this stage's"
        key = next(iter(self.header.inputs))
        return Samples({key: self.inputs})

    def targets(self, name: str) -> NDArray[Any]:
        assert name == self.only or not self.only, f"the {name} split is not this stage's"
        return np.asarray(self.labels)


def held_images(images: Any, labels: Any = (), only: str = "", classes: int = 2) -> Held:
    """Images uint8[N, H, W, C] with their labels."""
    images = np.asarray(images)
    size = {"height": images.shape[1], "width": images.shape[2], "channels": images.shape[3]}
    half = [0.5] * images.shape[3]
    names = [chr(ord("a") + i) for i in range(classes)]
    splits = dict.fromkeys([only] if only else SPLITS, len(images))
    header = ImageHeader(classes=names, splits=splits, mean=half, std=half, **size)
    return Held(Path(), header, images, labels, only)


def held_texts(tokens: Any, labels: Any = (), only: str = "") -> Held:
    """Tokens int32[N, L]."""
    tokens = np.asarray(tokens, np.int32)
    splits = dict.fromkeys([only] if only else SPLITS, len(tokens))
    header = TextHeader(
        classes=["a", "b"], splits=splits, vocabulary=300, max_length=tokens.shape[1], pad_id=0, truncate=False
    )
    return Held(Path(), header, tokens, labels, only)
