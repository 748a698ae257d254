"""Layouts of real data: folders without splits, a calibration folder, lists, groups, files of class names."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.building import load_work
from dlx_deploy.config import Data, load_config
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.nn.data.catalogue import open_catalogue
from dlx_deploy.nn.data.listing import image_names, warn_once

from .layouts import folders, picture, pixels, prepared, table

UNTRAINED = ["teacher.epochs=0", "distill.enabled=false", "prune.enabled=false"]


@pytest.fixture(autouse=True)
def _say_again() -> None:
    warn_once.cache_clear()


def test_class_folders_without_splits_are_split(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", {"a": 12, "b": 12})
    assert len(image_names(root)) == 24
    alone, _ = prepared(tmp_path / "alone", root)
    folders(tmp_path / "again" / "set", {})
    (tmp_path / "again" / "set").mkdir(parents=True)
    root.rename(tmp_path / "again" / "set" / "train")
    named, _ = prepared(tmp_path / "named", tmp_path / "again" / "set")
    assert alone.splits == named.splits == {"train": 14, "calibration": 14, "validation": 2, "test": 8}
    for split in ("train", "validation", "test"):
        assert pixels(alone, split) == pixels(named, split)


def test_a_folder_one_too_high_is_no_folder_of_classes(tmp_path: Path) -> None:
    folders(tmp_path / "set", {"flowers/train/a": 2, "flowers": 1, "birds": 2})
    with pytest.raises(DataError, match=r"flowers in it holds splits \(train\); give .*set/flowers"):
        prepared(tmp_path / "out", tmp_path / "set")


def test_a_calibration_folder_needs_no_labels(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", {"train/a": 6, "train/b": 6, "test/a": 3, "test/b": 3, "Calibration": 4})
    folders(root, {"Calibration/any/deeper": 3})
    (root / "Calibration/twin.png").write_bytes((root / "train/a/000.png").read_bytes())
    data, metrics = prepared(tmp_path / "out", root, validation_fraction=0.2)
    assert metrics["calibration_images"] == data.splits["calibration"] == 8
    assert set(data.targets("calibration")) == {-1}
    assert len(pixels(data, "calibration") & pixels(data, "train")) <= 1
    assert sum(name.startswith("Calibration/") for name in image_names(root)) == 8
    (root / "Calibration/twin.png").write_bytes((root / "test/a/000.png").read_bytes())
    with pytest.raises(DataError, match=r"Calibration/twin\.png \(calibration\) is .*test/a/000\.png \(test\)"):
        prepared(tmp_path / "again", root, validation_fraction=0.2)


def test_a_thousand_classes_of_one_image_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "set"
    for i in range(1000):
        (root / f"{i:04}").mkdir(parents=True)
        Image.fromarray(np.full((1, 1, 3), (i % 256, i // 256, 7), np.uint8)).save(root / f"{i:04}" / "x.bmp")
    data, metrics = prepared(tmp_path / "out", root, use="evaluation", height=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert metrics["classes"] == 1000
    assert data.splits == {"train": 0, "calibration": 250, "validation": 100, "test": 650}
    parts = [pixels(data, split) for split in ("calibration", "validation", "test")]
    assert len(set().union(*parts)) == 1000
    assert "calibration has 250 images, and data.calibration_images is 256: one in 4" in caplog.text
    assert "350 of 1000 images of the test folder are set aside for validation and calibration" in caplog.text
    assert "nothing of class" in caplog.text
    with pytest.raises(DataError, match=r"the test split is empty: data\.test_fraction is 0\.333333"):
        prepared(tmp_path / "trained", root, height=1)


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ({"test/a": 20, "test/b": 20}, {"train": 0, "calibration": 10, "validation": 4, "test": 26}),
        ({"test/a": 8, "test/b": 8, "calibration": 5}, {"train": 0, "calibration": 5, "validation": 2, "test": 14}),
        (
            {"test/a": 8, "test/b": 8, "val/a": 3, "val/b": 3, "calibration": 5},
            {"train": 0, "calibration": 5, "validation": 6, "test": 16},
        ),
        ({"val/a": 20, "val/b": 20}, {"train": 0, "calibration": 10, "validation": 4, "test": 26}),
    ],
)
def test_what_a_finished_network_is_judged_by_is_enough(
    tmp_path: Path, counts: Mapping[str, int], sizes: Mapping[str, int]
) -> None:
    root = folders(tmp_path / "set", counts)
    data, metrics = prepared(tmp_path / "out", root, use="evaluation")
    assert data.splits == sizes
    assert {f"{split}_images": float(n) for split, n in sizes.items()}.items() <= metrics.items()
    assert not pixels(data, "test") & (pixels(data, "calibration") | pixels(data, "validation"))
    assert data.split("train")[0].shape == (0, 4, 4, 3)
    prepared(tmp_path / "again", root, use="evaluation")
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_evaluation_is_chosen_where_nothing_is_trained(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", {"test/a": 2, "test/b": 2, "test/c": 1})
    given = ["data.kind=imagefolder", f"data.path='{root}'", "data.height=4"]
    with pytest.raises(DataError, match=r"has no train folder; .*where nothing is trained \(teacher\.epochs = 0"):
        load_work(None, None, given, tmp_path / "store")
    checkpoint = [*UNTRAINED, "teacher.pretrained=DEFAULT", "teacher.model=resnet18"]
    assert load_config(None, [*given, *checkpoint]).data.use == "evaluation"
    load_work(None, None, [*given, *checkpoint], tmp_path / "store")
    assert load_config(None, [*given, "teacher.epochs=0", "prune.enabled=false"]).data.use == "auto"
    assert load_config(None, UNTRAINED).data.use == "auto"
    folders(root, {"train/a": 5, "train/b": 5})
    with pytest.raises(DataError, match=r"test: class 'c' is not in train"):
        load_work(None, None, given, tmp_path / "store")
    load_work(None, None, [*given, *checkpoint], tmp_path / "store")
    with pytest.raises(ConfigError, match=r"data\.use is 'evaluation', and a network is trained or pruned; set teach"):
        load_work(None, None, [*given, "data.use=evaluation"], tmp_path / "store")


def listed(root: Path, **columns: Sequence[str]) -> list[dict[str, str]]:
    """A row and a file for each value of ``columns``."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row in rows:
        picture(root / row["path"])
    return rows


def test_a_list_says_what_folders_say(tmp_path: Path) -> None:
    splits = ["train"] * 8 + ["val"] * 2 + ["TEST"] * 4 + ["calibration"] * 3
    rows = listed(
        tmp_path / "photos",
        path=[f"x/{i}.png" for i in range(17)],
        label=["cat", "dog"] * 7 + [""] * 3,
        split=splits,
        camera=["left"] * 17,
    )
    data, metrics = prepared(tmp_path / "out", table(tmp_path / "list.csv", rows), root=str(tmp_path / "photos"))
    assert data.classes == ("cat", "dog")
    assert data.splits == {"train": 8, "calibration": 3, "validation": 2, "test": 4}
    assert metrics["files_left_out"] == 0
    lines = "".join(json.dumps({"file_name": row["path"], **row} | {"path": None}) + "\n" for row in rows)
    lines = lines.replace('"path": null, ', "")
    (tmp_path / "photos/list.jsonl").write_text(lines.replace(', "path": null', ""))
    again, _ = prepared(tmp_path / "again", tmp_path / "photos/list.jsonl")
    for split in data.splits:
        assert pixels(data, split) == pixels(again, split)


def rows_of(*names: str, label: str = "ab") -> list[dict[str, str]]:
    return [{"path": name, "label": label[i % 2]} for i, name in enumerate(names)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            rows_of("0.png", "../1.png"),
            r"list\.csv, line 3: '\.\./1\.png' leads out of the folder that paths are relati",
        ),
        (rows_of("/0.png", "1.png"), r"line 2: '/0\.png' leads out of the folder"),
        (rows_of("x/../../0.png", "1.png"), r"line 2: 'x/\.\./\.\./0\.png' leads out"),
        (rows_of("0.png", "1.png", "x/../0.png"), r"line 4: '0\.png' is in line 2 already; an image is in one row"),
        (rows_of("0.png", "1.txt"), r"line 3: '1\.txt' is no image by its suffix; must be one of \.bmp"),
        (rows_of("a\\0.gif"), r"is no image by its suffix.*separate folders by /"),
        (rows_of("0.png", "1.png", "", "2.png"), r"line 4: the path is empty; fill it in or remove the line"),
        (rows_of("0.png", "1.png", label="a "), r"line 3: the label is empty"),
        (rows_of("0.png", "1.png", label="aA"), r"labels 'A' and 'a' differ in their writing only; make them one"),
        (
            rows_of("0.png", "1.png", "none.png"),
            r"1 of 3 images are no files below .*the first: none\.png; correct the",
        ),
        (
            [{"path": "0.png", "label": "a", "split": "dev"}],
            r"the split is 'dev'; must be train, validation \(or val\),",
        ),
        ([{"path": "0.png", "label": "a", "split": ""}], r"the split is empty; fill it in, or leave the column out"),
        ([{"path": "0.png", "label": "a", "group": ""}], r"the group is empty; fill it in"),
        (
            [{"path": f"{i}.png", "label": "ab"[i], "group": ("A 1", "a  1")[i]} for i in (0, 1)],
            r"the groups 'A 1' and 'a  1' differ in their writing only; make them one",
        ),
        ([{"label": "a"}], r"line 2: has no 'path'; has label"),
        ([{"path": "0.png", "file": "0.png", "label": "a"}], r"line 1: has 2 columns 'path'; keep one"),
        ([{"path": "0.png", "label": "a", "split": "test"}], r"has no train rows; where nothing is trained"),
        (rows_of("0.png", label="aa"), r"list\.csv: one class only \('a'\); a classifier needs images of at least 2"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, rows: Sequence[Mapping[str, str]], message: str) -> None:
    folders(tmp_path, {"": 0})
    for name in ("0.png", "1.png", "2.png"):
        picture(tmp_path / name)
    given = ["data.kind=imagelist", f"data.path='{table(tmp_path / 'list.csv', rows)}'", "data.height=4"]
    with pytest.raises(DataError, match=message):
        load_work(None, None, given, tmp_path / "store")


@pytest.mark.parametrize("use", ["training", "evaluation"])
def test_groups_never_leak(tmp_path: Path, use: str) -> None:
    count, sizes = 120, np.random.default_rng(0).integers(0, 25, 120)
    rows = listed(
        tmp_path,
        path=[f"{i}_of_patient{g}_.png" for i, g in enumerate(sizes)],
        label=["sick" if g % 3 else "well" for g in sizes],
        group=[f"p{g}" for g in sizes],
    )
    by_pixels = {np.asarray(Image.open(tmp_path / row["path"]).resize((4, 4), 2)).tobytes(): row for row in rows}
    data, metrics = prepared(tmp_path / "out", table(tmp_path / "list.csv", rows), use=use)
    groups = {split: {by_pixels[p]["group"] for p in pixels(data, split)} for split in ("train", "validation", "test")}
    if use == "evaluation":
        groups["train"] = {by_pixels[p]["group"] for p in pixels(data, "calibration")}
    assert metrics["test_groups"] == len(groups["test"]) < data.splits["test"]
    for one, other in itertools.combinations(groups.values(), 2):
        assert one
        assert not one & other
    assert sum(data.splits[s] for s in ("train", "validation", "test")) <= count
    if use == "training":
        assert abs(data.splits["test"] - 40) <= 8
        for row in rows:
            del row["group"]
        plain = table(tmp_path / "plain.csv", rows)
        again, _ = prepared(tmp_path / "again", plain, group_by=r"of_patient(\d+)_")
        other = {split: {by_pixels[p]["path"].split("_")[2] for p in pixels(again, split)} for split in groups}
        assert not other["test"] & (other["train"] | other["validation"])
        with pytest.raises(DataError, match=r"data\.group_by is 'camera', and finds no group in '.*png'; rule: every"):
            prepared(tmp_path / "none", plain, group_by="camera")


def test_groups_in_two_given_splits_are_refused(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    with pytest.raises(
        DataError, match=r"set: group '000' is in two splits \(2 such\): train/a/000\.png and test/a/000"
    ):
        prepared(tmp_path / "out", root, group_by=r"\d{3}")
    prepared(tmp_path / "out", root, group_by=r"\d{3}", allow_leakage=True, validation_fraction=0.3)
    with pytest.raises(ConfigError, match=r"group_by is '\(', no regular expression \(missing \)"):
        load_config(None, ["data.group_by='('"])


def test_damaged_files_up_to_a_share_are_left_out_and_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folders(tmp_path / "set", {"train/a": 10, "train/b": 10, "test/a": 5, "test/b": 5})
    for name in ("train/a/003.png", "train/b/004.png", "test/a/001.png"):
        (root / name).write_bytes((root / name).read_bytes()[:50])
    with pytest.raises(DataError, match=r"2 of \d+ images cannot be used; the first: .*train/[ab]/00[34]\.png"):
        prepared(tmp_path / "out", root)
    with pytest.raises(DataError, match=r"cannot be used \(data\.max_bad_fraction allows 0\.01 of them\)"):
        prepared(tmp_path / "out", root, max_bad_fraction=0.01)
    data, metrics = prepared(tmp_path / "some", root, max_bad_fraction=0.2)
    assert metrics["bad_images"] == 3
    assert (data.splits["test"], data.splits["train"] + data.splits["validation"]) == (9, 18)
    assert len(data.targets("test")) == 9
    said = json.loads((tmp_path / "some/left_out.json").read_text())
    assert [entry["file"] for entry in said["files"]] == ["test/a/001.png", "train/a/003.png", "train/b/004.png"]
    assert all(entry["reason"].startswith("cannot be decoded as an image (") for entry in said["files"])
    assert str(tmp_path) not in (tmp_path / "some/left_out.json").read_text()
    assert "3 images of" in caplog.text
    for i in range(1, 10):
        (root / f"train/a/{i:03}.png").write_bytes(b"no image")
    (root / "train/a/000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"class 'a' has no training image of its own \(1 such\): all cannot be read"):
        prepared(tmp_path / "gone", root, max_bad_fraction=0.9)


def test_missing_files_of_a_list_up_to_a_share(tmp_path: Path) -> None:
    rows = listed(tmp_path, path=[f"{i}.png" for i in range(20)], label=["a", "b"] * 10)
    (tmp_path / "7.png").unlink()
    _, metrics = prepared(tmp_path / "out", table(tmp_path / "list.csv", rows), max_bad_fraction=0.4)
    assert metrics["bad_images"] == 1
    assert "no such image file" in (tmp_path / "out/left_out.json").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["data.root=x"], r"data\.root is 'x', and data\.kind is 'digits'; only 'imagelist' has it: leave it out"),
        (
            ["data.classes=x"],
            r"data\.classes is 'x', and data\.kind is 'digits'; only 'imagefolder', 'imagelist', 'webdataset', 'h",
        ),
        (["data.max_bad_fraction=0.5"], r"data\.max_bad_fraction is 0\.5, and data\.kind is 'digits'"),
        (
            ["data.kind=imagelist", "data.height=4"],
            r"data\.path is ''; data\.kind 'imagelist' needs a \.csv or \.jsonl",
        ),
        (["data.kind=imagelist", "data.path=none.csv", "data.height=4"], r"none\.csv: no such list of images"),
    ],
)
def test_keys_of_other_layouts_are_refused(tmp_path: Path, given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_work(None, None, given, tmp_path / "store")


@pytest.mark.parametrize("key", ["path", "label", "group"])
def test_halves_of_characters_in_a_list(tmp_path: Path, key: str) -> None:
    row = {"path": "0.png", "label": "a", "group": "g"}
    (tmp_path / "list.jsonl").write_text(json.dumps({**row, key: "\ud800.png"}) + "\n")
    with pytest.raises(DataError, match=r"line 1: '\\ud800\.png' holds half of a character; write both halves"):
        open_catalogue(Data(kind="imagelist", path=str(tmp_path / "list.jsonl")))
