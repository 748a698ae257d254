"""What is known of samples, written row by row."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.dataset import Column, Dataset
from dlx_deploy.nn.data.headers import ImageHeader, TextHeader
from dlx_deploy.nn.data.images import ImageSource
from dlx_deploy.nn.data.prepare import prepare
from dlx_deploy.nn.data.splits import Indices
from dlx_deploy.nn.data.targets import ArrayTargets
from dlx_deploy.nn.data.texts import TextSource, texts_of

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), np.uint8)
MEANS = IMAGES.mean(axis=(1, 2, 3), dtype=np.float32)[:, None]


class MeanHeader(ImageHeader, frozen=True, kw_only=True, tag="telling-means"):
    """Images and their mean."""

    @property
    def targets(self) -> Column:
        """float32[N, 1]."""
        return Column("means", "float32", (1,))


def source(means: np.ndarray) -> ImageSource:
    def fill(split: str, positions: Indices, into: np.ndarray) -> None:
        into[:] = IMAGES[positions]

    targets = ArrayTargets(Column("means", "float32", (1,)), {"train": means})
    return ImageSource(("mean",), targets, (4, 4, 1), fill, lambda split, i: str(i), Data(), make_header=MeanHeader)


def test_each_image_keeps_its_numbers(tmp_path: Path) -> None:
    counts = prepare(source(MEANS), Data(calibration_images=10), tmp_path, 0)
    header = MeanHeader(
        classes=["mean"],
        splits={"train": 36, "calibration": 10, "validation": 4, "test": 20},
        height=4,
        width=4,
        channels=1,
        mean=[0.0],
        std=[1.0],
    )
    assert {name: int(counts[f"{name}_images"]) for name in header.splits} == header.splits
    for split in header.splits:
        images, means = Dataset(tmp_path, header).split(split)
        np.testing.assert_array_equal(means, images.mean(axis=(1, 2, 3), dtype=np.float32)[:, None])


class LengthHeader(TextHeader, frozen=True, kw_only=True, tag="telling-lengths"):
    """Texts and how many words each has."""

    @property
    def targets(self) -> Column:
        """float32[N, 1]."""
        return Column("lengths", "float32", (1,))


def test_each_text_keeps_its_numbers(tmp_path: Path) -> None:
    texts = [" ".join(f"word{i * n}" for n in range(1, i % 7 + 2)) for i in range(60)]
    lengths = np.array([[len(text.split())] for text in texts], np.float32)
    targets = ArrayTargets(Column("lengths", "float32", (1,)), {"train": lengths})
    config = Data(kind="told", calibration_images=10, tokenizer="words", vocabulary=300, max_length=16)
    told = TextSource(("length",), targets, {"train": texts}, config, make_header=LengthHeader)
    prepare(told, config, tmp_path, 0)
    header = msgspec.convert(json.loads((tmp_path / "dataset.json").read_bytes()), LengthHeader)
    for split in header.splits:
        data = Dataset(tmp_path, header)
        counted = [[len(text.split())] for text in texts_of(data, split)]
        np.testing.assert_array_equal(data.targets(split), counted)
    assert sum(header.splits.values()) > 60


def test_rows_that_the_header_does_not_describe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"the train split's means are float64\[36, 1\]; the header says float32\[36, 1\]"
    ):
        prepare(source(MEANS.astype(np.float64)), Data(calibration_images=10), tmp_path, 0)


def test_copies_are_told_apart_by_their_rows() -> None:
    targets = ArrayTargets(Column("means", "float32", (1,)), {"train": np.array([[1], [2], [1]], np.float32)})
    assert targets.one("train", 0) == targets.one("train", 2) != targets.one("train", 1)
    assert targets.strata["train"].tolist() == [0, 0, 0]
