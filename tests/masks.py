"""Folders of images with masks, small enough for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SHADES = np.array([[40, 40, 40], [200, 60, 60], [60, 60, 200]], np.uint8)


def mask_folder(folder: Path, count: int, split: str = "train", side: int = 16, ignored: bool = True) -> Path:
    """``folder/SPLIT/images`` and ``masks``: rectangles of two colours on grey, their masks with an ignored rim."""
    rng = np.random.default_rng(["train", "validation", "test"].index(split))
    for part in ("images", "masks"):
        (folder / split / part).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        mask = np.zeros((side, side), np.uint8)
        for kind in (1, 2):
            y, x = rng.integers(0, side // 2, 2)
            mask[y : y + side // 2, x : x + side // 3] = kind
        pixels = SHADES[mask] + rng.integers(0, 40, (side, side, 3))
        if ignored:
            mask[0] = 255
        Image.fromarray(pixels.astype(np.uint8)).save(folder / split / "images" / f"{i:03}.png")
        Image.fromarray(mask).save(folder / split / "masks" / f"{i:03}.png")
    return folder
