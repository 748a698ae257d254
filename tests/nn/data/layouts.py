"""Small pictures in folders and lists, each unlike all others."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dlx_deploy.config import Data
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.tasks import prepare

__all__ = ["folders", "picture", "pixels", "prepared", "table"]

NUMBERS = itertools.count()


def picture(path: Path) -> Path:
    """A picture that no other is like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(next(NUMBERS)).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def folders(root: Path, counts: Mapping[str, int]) -> Path:
    for name, count in counts.items():
        for i in range(count):
            picture(root / name / f"{i:03}.png")
    return root


def table(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def prepared(out: Path, path: Path, **more: Any) -> tuple[Dataset, dict[str, float]]:
    given = {"kind": "imagefolder" if path.is_dir() else "imagelist", "path": str(path), "height": 4, **more}
    metrics = prepare(Data(**given), out, 0)
    return open_data(out), metrics


def pixels(data: Dataset, split: str) -> set[bytes]:
    return {image.tobytes() for image in data.samples(split).arrays["images"]}
