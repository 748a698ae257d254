"""The list beside masks, as a device reads it: columns of the images that are judged, and what is refused."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.labelled_arrays import read_labelled
from dlx_deploy.runtime.tasks.mask_lists import listed_columns
from dlx_deploy.runtime.tasks.semantic_segmentation import semantic_segmentation

TASK = semantic_segmentation(Framing(2, 2, 3), ("a", "b"))
NAMES = [unicodedata.normalize("NFD", "é.png"), "x.png", "y.png"]
"""As a Mac writes them."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("images", "masks"):
        (tmp_path / "Test" / part).mkdir(parents=True)
        for name in NAMES:
            Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "Test" / part / name)
    return tmp_path


def write(path: Path, *rows: dict[str, object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_columns_of_the_images_that_are_judged(folder: Path) -> None:
    """In their order, by names in any writing; rows of others are passed over, and a row may say no group."""
    assert listed_columns(folder, ["time", "group"]) == {}
    rows: list[dict[str, object]] = [
        {"path": "train/images/z.png"},
        {"path": "Test/images/y.png", "Time": 7},
        {"path": "Test/images/é.png", "Time": "night", "group": "g"},
        {"path": "./Test/images/x.png", "Time": "day", "group": "g"},
    ]
    write(folder / "list.jsonl", *rows)
    found = {"time": ["day", "7", "night"], "group": ["g", "", "g"]}
    assert listed_columns(folder, ["time", "camera", "group"]) == found
    assert read_labelled(TASK, folder, ["time", "group"]).columns == found
    assert listed_columns(folder, ["group"]) == {"group": found["group"]}
    assert listed_columns(folder, ["camera"]) == {}
    write(folder / "Test" / "list.jsonl", *({"path": f"images/{name}", "time": "day"} for name in NAMES))
    assert listed_columns(folder / "Test", ["time", "group"]) == {"time": ["day"] * 3}


def test_a_data_folder_has_the_columns_beside_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").touch()
    (tmp_path / "slices.json").write_text('{"time": ["day"]}')
    assert TASK.columns is not None
    assert TASK.columns(tmp_path / "data", ["time", "group"]) == {"time": ["day"]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"path": "images/x.png", "time": "day"}],
            r"3 of 3 images are in none of its rows \(the first: Test/images/x",
        ),
        (
            [{"path": f"Test/images/{name}", "time": "day" * (name != "x.png")} for name in NAMES],
            r"list\.jsonl, line 2: Test/images/x\.png has nothing in the column 'time' \(1 of 3 images that",
        ),
        ([{"path": "Test/images/é.png", "time": []}], r"line 1: the column 'time' is a list; must be a string or a"),
        ([{"time": "day"}], r"line 1: has no 'path'; has time"),
        ([{"path": "a.png"}, {"path": "a.png", "time": "day"}], r"line 2: 'a\.png' is in line 1 already"),
    ],
)
def test_lists_that_cannot_be_used(folder: Path, rows: list[dict[str, object]], message: str) -> None:
    write(folder / "list.jsonl", *rows)
    with pytest.raises(InputError, match=message):
        listed_columns(folder, ["time"])


def test_one_list_at_a_time(folder: Path) -> None:
    for name in ("list.csv", "list.jsonl"):
        (folder / name).touch()
    with pytest.raises(InputError, match=r"has list\.csv and list\.jsonl; keep one of them"):
        listed_columns(folder, ["time"])
