"""Copies between splits, found by their pixels: refused where the user made the split, kept apart where we draw it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.copies import Row, digests, find_copies
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.nn.data.listing import warn_once
from dlx_deploy.tasks import prepare


@pytest.fixture(autouse=True)
def _say_again() -> None:
    warn_once.cache_clear()


def save(path: Path, number: int) -> None:
    """Image ``number``: the same pixels in any format that loses none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def folder(root: Path, **splits: dict[str, list[int]]) -> Path:
    """``train={"a": [1, 2]}``: images 1 and 2 in train/a."""
    for split, classes in splits.items():
        for name, numbers in classes.items():
            for position, number in enumerate(numbers):
                save(root / split / name / f"{position}.png", number)
    return root


def build(root: Path, out: Path, **more: Any) -> tuple[dict[str, float], Dataset]:
    counts = prepare(
        Data(kind="imagefolder", path=str(root), **{"height": 6, "validation_fraction": 0.3, **more}), out, 0
    )
    return counts, open_data(out)


def pixels(data: Dataset) -> dict[str, set[bytes]]:
    return {name: set(digests(data.split(name)[0])) for name in ("train", "validation", "test")}


TRAIN = {"a": list(range(10)), "b": list(range(10, 20))}
TEST = {"a": [50, 51], "b": [52, 53]}


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
@pytest.mark.parametrize(("split", "group"), [("test", "a"), ("test", "b"), ("val", "a")])
def test_a_training_image_in_another_folder_is_refused(tmp_path: Path, suffix: str, split: str, group: str) -> None:
    root = folder(tmp_path / "set", train=TRAIN, test=TEST, val={"a": [60], "b": [61]})
    save(root / split / group / f"copy{suffix}", 3)
    message = (
        rf"1 images are in several splits, pixel for pixel; the first: .*train/a/3\.png \(train\) is .*{split}/{group}/"
        r"copy\S+ \(\w+\); what a network is judged by must be new to it: .* data\.allow_leakage = true"
    )
    with pytest.raises(DataError, match=message):
        build(root, tmp_path / "out")


def test_a_validation_image_in_test_is_refused_too(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", train=TRAIN, test=TEST, validation={"a": [50], "b": [61]})
    with pytest.raises(DataError, match=r"validation/a/0\.png \(validation\) is .*test/a/0\.png \(test\)"):
        build(root, tmp_path / "out")


def test_leakage_that_is_allowed_is_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folder(tmp_path / "set", train=TRAIN, test={"a": [0, 1, 50], "b": [52]})
    with caplog.at_level(logging.WARNING):
        counts, data = build(root, tmp_path / "out", allow_leakage=True)
    assert counts["leaked_images"] == 2
    assert counts["train_images"] + counts["validation_images"] == 20
    assert len((pixels(data)["train"] | pixels(data)["validation"]) & pixels(data)["test"]) == 2
    assert "2 images are in several splits; data.allow_leakage is true, so they stay" in caplog.text


def test_copies_within_the_folder_that_is_drawn_from_do_not_part(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = folder(tmp_path / "set", train={"a": [*range(12), *range(12)], "b": [*range(20, 32), *range(20, 32)]})
    with caplog.at_level(logging.WARNING):
        counts, data = build(root, tmp_path / "out")
    splits = pixels(data)
    assert not splits["train"] & splits["test"]
    assert not splits["train"] & splits["validation"]
    assert not splits["validation"] & splits["test"]
    assert sum(counts[f"{name}_images"] for name in splits) + counts["copies_left_out"] == 48
    assert counts["copies_left_out"] > 0
    assert "images of the train split are copies of images in another: they are left out" in caplog.text
    names = {digest: "ab"[n >= 20] for n in (*range(12), *range(20, 32)) for digest in digests(image(n))}
    for split in splits:
        images, labels = data.split(split)
        assert [names[d] for d in digests(images)] == [data.classes[label] for label in labels]


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (1, 6, 6, 3), dtype=np.uint8)


def test_nothing_but_copies(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", train={"a": [1] * 9, "b": list(range(10, 20))})
    with pytest.raises(DataError, match=r"class 'a' has no training image of its own \(1 such\): all are copies"):
        build(root, tmp_path / "out")
    with pytest.raises(DataError, match=r"the validation split is empty: all its images are copies"):
        build(folder(tmp_path / "b", train={"a": [1] * 9, "b": [2] * 9}), tmp_path / "out")


def test_what_the_test_split_repeats_and_what_contradicts_itself_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = folder(
        tmp_path / "set", train={"a": [*range(9), 99], "b": [*range(10, 19), 99]}, test={"a": [50, 50], "b": [52]}
    )
    with caplog.at_level(logging.WARNING):
        counts, _ = build(root, tmp_path / "out", allow_leakage=True)
    assert (counts["contradictory_images"], counts["repeated_test_images"]) == (1, 1)
    assert "1 images of" in caplog.text
    assert "are there under several classes: the network cannot learn both" in caplog.text
    assert "1 test images of" in caplog.text


def test_images_that_only_resemble_each_other_are_none(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", train=TRAIN, test=TEST)
    pixels = np.asarray(Image.open(root / "train/a/3.png")).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(root / "test/a/near.png")
    counts, _ = build(root, tmp_path / "out")
    assert set(counts) == {
        "train_images", "calibration_images", "validation_images", "test_images", "classes", "files_left_out",
    }  # fmt: skip


def test_the_search_is_linear() -> None:
    many = [i.to_bytes(8, "big") for i in range(60_000)]
    asked: list[Row] = []

    def target(row: Row) -> int:
        asked.append(row)
        return 0

    copies = find_copies({"train": many, "validation": [], "test": many}, target)
    assert (len(copies.across), len(asked)) == (60_000, 120_000)


def test_the_built_in_data_hold_no_copies(tmp_path: Path) -> None:
    prepare(Data(), tmp_path, 0)
    data = open_data(tmp_path)
    copies = find_copies({n: digests(data.split(n)[0]) for n in pixels(data)}, lambda row: data.targets(row[0])[row[1]])
    assert (copies.across, copies.repeated) == ((), 0)
