"""The list beside folders of masks: of which slices and groups an image is, what is kept of it, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from dlx_deploy.config import Data
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.nn.data.catalogue_checks import check_layout, check_source
from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.nn.data.slices import SLICES, read_slices
from dlx_deploy.tasks import prepare, survey, task_for

from ...masks import mask_folder

Rows = dict[str, dict[str, str]]
"""An image's path → its other columns."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return mask_folder(mask_folder(tmp_path / "set", 24), 12, "test")


def data_of(root: Path, *slices: str, **more: object) -> Data:
    given = {"kind": "maskfolder", "path": str(root), "height": 16, "calibration_images": 4, "slices": slices, **more}
    return Data(**given)  # type: ignore[arg-type]


def rows_of(root: Path, *splits: str) -> Rows:
    """A row for each image of ``splits``: the first half is of the day, and four in a row are of one scene."""
    names = {split: sorted((root / split / "images").iterdir()) for split in splits}
    return {
        image.relative_to(root).as_posix(): {
            "Time": "day" if i < len(images) / 2 else "night",
            "group": f"{split} {i // 4}",
        }
        for split, images in names.items()
        for i, image in enumerate(images)
    }


def write(root: Path, rows: Rows, *columns: str, name: str = "list.csv") -> None:
    kept = [{"path": path, **{key: row[key] for key in columns if key in row}} for path, row in rows.items()]
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        if name.endswith(".jsonl"):
            file.write("".join(json.dumps(row) + "\n" for row in kept))
            return
        out = csv.DictWriter(file, ["path", *columns], restval="")
        out.writeheader()
        out.writerows(kept)


def content(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_each_test_image_keeps_its_slices(folder: Path, tmp_path: Path, name: str) -> None:
    """Beside the data set, which stays what it is; images that are not judged need no row."""
    prepare(data_of(folder), tmp_path / "plain" / "data", 0)
    write(folder, rows_of(folder, "test"), "Time", name=name)
    prepare(data_of(folder, "time"), tmp_path / "sliced" / "data", 0)
    assert content(tmp_path / "sliced" / "data") == content(tmp_path / "plain" / "data")
    images = open_data(tmp_path / "sliced" / "data").samples("test").arrays["images"]
    files = [np.asarray(Image.open(path)) for path in sorted((folder / "test" / "images").iterdir())]
    places = [next(i for i, file in enumerate(files) if (file == image).all()) for image in images]
    assert sorted(places) == list(range(12))
    assert places != list(range(12))
    assert read_slices(tmp_path / "sliced" / SLICES) == {"time": ["day" if i < 6 else "night" for i in places]}


def test_a_test_split_that_is_drawn_has_slices_too(tmp_path: Path) -> None:
    root = mask_folder(tmp_path / "set", 24)
    rows = rows_of(root, "train")
    write(root, rows, "Time")
    counts = prepare(data_of(root, "time"), tmp_path / "out" / "data", 0)
    assert len(read_slices(tmp_path / "out" / SLICES)["time"]) == counts["test_images"] == 8
    del rows["train/images/003.png"]
    write(root, rows, "Time")
    with pytest.raises(DataError, match=r"1 of 24 images are in none of its rows \(the first: train/images/003\.png\)"):
        prepare(data_of(root, "time"), tmp_path / "again" / "data", 0)


@pytest.mark.parametrize("by_list", [True, False])
def test_splits_take_whole_groups(tmp_path: Path, by_list: bool) -> None:
    """Of the list's column ``group``, or as a regular expression finds them."""
    root = mask_folder(tmp_path / "set", 40)
    if by_list:
        write(root, rows_of(root, "train"), "group")
    data = data_of(root) if by_list else data_of(root, group_by="images/(0[0-3])")
    check_layout(data)
    counts = prepare(data, tmp_path / "out", 0)
    images = open_data(tmp_path / "out").samples("test").arrays["images"]
    files = [np.asarray(Image.open(path)) for path in sorted((root / "train" / "images").iterdir())]
    places = [next(i for i, file in enumerate(files) if (file == image).all()) for image in images]
    size = 4 if by_list else 10
    groups = {i // size for i in places}
    assert counts["test_groups"] == len(groups) == len(places) / size
    assert survey(data, 0).survey.tallies["groups"]["test"] == len(groups)
    with pytest.raises(DataError, match=r"data\.group_by is 'scene', and finds no group in 'train/images/000\.png'"):
        check_source(replace(data, group_by="scene"))


def test_the_list_is_a_file_that_is_read_where_it_says_something(folder: Path) -> None:
    def names(data: Data) -> list[str]:
        tree = task_for(data).files(data)["images"]
        return sorted(set(tree.names(folder)) - {"classes.txt"})  # type: ignore[union-attr]

    (folder / "list.csv").write_text("photographer,camera\nme,3\n")
    assert "list.csv" not in names(data_of(folder))  # a list of something else
    check_source(data_of(folder))
    write(folder, rows_of(folder, "train", "test"), "Time", "group")
    assert "list.csv" in names(data_of(folder))
    assert "list.csv" in names(data_of(folder, "time", group_by="images/0"))
    assert "list.csv" not in names(data_of(folder, group_by="images/0"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "none",
            r"data\.slices is \['time'\], and .*set has no list\.csv or list\.jsonl; write one with .* path,time,",
        ),
        ("two", r"set: has list\.csv and list\.jsonl; keep one of them"),
        (
            "no row",
            r"list\.csv: 1 of 12 images are in none of its rows \(the first: test/images/003\.png\); give each a",
        ),
        (
            "empty",
            r"list\.csv, line 6: test/images/004\.png has nothing in the column 'time' \(2 of 12 images that are",
        ),
        ("nan", r"list\.csv, line 6: the column 'time' is 'nan', which stands for a missing one"),
        ("no column", r"list\.csv: has no column 'time'; nearest: 'tine'"),
        ("outside", r"list\.csv, line 14: '\.\./007\.png' leads out of the folder that paths are relative to"),
        ("absolute", r"list\.csv, line 14: '/007\.png' leads out of the folder"),
        ("twice", r"list\.csv, line 14: 'test/images/003\.png' is in line 5 already; an image is in one row"),
        ("no rows", r"list\.csv: holds no images; give one a line"),
        ("no path", r"list\.csv, line 2: has no 'path'; has name, time"),
    ],
)
def test_lists_that_cannot_be_used(folder: Path, change: str, message: str) -> None:
    rows = rows_of(folder, "test")
    column = "tine" if change == "no column" else "Time"
    of = {path: {column: row["Time"]} for path, row in rows.items()}
    if change == "no row":
        del of["test/images/003.png"]
    of = {} if change == "no rows" else of
    more = {"outside": "../007.png", "absolute": "/007.png", "twice": "test/./images/003.png"}
    of.update({more[change]: {column: "day"}} if change in more else {})
    for i in (4, 9):
        if change in ("empty", "nan"):
            of[f"test/images/{i:03}.png"][column] = "nan" * (change == "nan")
    if change != "none":
        write(folder, of, column)
    if change == "two":
        write(folder, of, column, name="list.jsonl")
    if change == "no path":
        (folder / "list.csv").write_text("name,time\n1.png,day\n")
    for look in (check_source, lambda data: survey(data, 0)):
        with pytest.raises(DataError, match=message):
            look(data_of(folder, "time"))


def test_groups_of_the_list_that_cannot_be_used(folder: Path) -> None:
    rows = rows_of(folder, "train", "test")
    rows["test/images/000.png"]["group"] = "train 0"
    write(folder, rows, "group")
    with pytest.raises(DataError, match=r"group 'train 0' is in the t.* split and in the t.* split \(1 such groups\)"):
        check_source(data_of(folder))
    check_source(data_of(folder, allow_leakage=True))
    rows["test/images/000.png"]["group"] = "Test 0"
    write(folder, rows, "group")
    with pytest.raises(
        DataError, match=r"the groups 'Test 0' and 'test 0' differ in their writing only; make them one"
    ):
        check_source(data_of(folder))
    del rows["train/images/007.png"]
    write(folder, rows, "group")
    with pytest.raises(DataError, match=r"1 of 24 images are in none of its rows \(the first: train/images/007\.png\)"):
        check_source(data_of(folder))


def test_a_list_of_something_else_that_has_groups_is_to_be_called_otherwise(folder: Path) -> None:
    (folder / "list.csv").write_text("photographer,group\nme,3\n")
    with pytest.raises(DataError, match=r"has no 'path'; has photographer, group; or call the file otherwise, if"):
        check_source(data_of(folder))


def test_rows_of_no_image_are_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, {**rows_of(folder, "test"), "test/masks/001.png": {"Time": "day"}}, "Time")
    check_source(data_of(folder, "time"))
    assert "1 of 13 rows name no image of a split (the first: test/masks/001.png)" in caplog.text


def test_a_look_at_the_data_counts_slices(folder: Path) -> None:
    write(folder, rows_of(folder, "test"), "Time")
    assert survey(data_of(folder, "time"), 0).survey.slices == {"time=day": 6, "time=night": 6}


def test_scenes_have_no_slices() -> None:
    with pytest.raises(
        ConfigError, match=r"data\.slices is \['time'\], and data\.kind is 'scenes'; only .*'maskfolder'"
    ):
        check_layout(Data(kind="scenes", slices=("time",)))
