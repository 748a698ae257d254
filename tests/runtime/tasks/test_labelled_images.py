"""Labelled images on a device: the layouts that a build reads, by the names of a package's classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.labelled import load_labelled_images, name_labelled_images
from dlx_deploy.runtime.tasks.labelled_images import labelled_images
from dlx_deploy.runtime.tasks.labels import class_numbers

CLASSES = ("dog", "cat")


def put(root: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 3), (i, 0, 0)).save(root / name)
    return root


def found(path: Path, classes: Sequence[str] = CLASSES) -> list[tuple[str, int]]:
    return [(image.path.relative_to(path if path.is_dir() else path.parent).as_posix(), image.number)
            for image in labelled_images(path, classes)]  # fmt: skip


def test_the_split_to_judge_by(tmp_path: Path) -> None:
    root = put(tmp_path / "a", "cat/0.png", "dog/1.png")
    assert found(root) == [("cat/0.png", 1), ("dog/1.png", 0)]
    put(root.parent / "b", "calibration/0.png", "Val/cat/0.png", "Val/dog/1.png")
    assert found(tmp_path / "b") == [("Val/cat/0.png", 1), ("Val/dog/1.png", 0)]
    put(tmp_path / "b", "test/dog/7.png")
    assert found(tmp_path / "b") == [("test/dog/7.png", 0)]
    put(tmp_path / "c", "train/dog/1.png", "val/dog/1.png")
    with pytest.raises(InputError, match="has a train folder and no test folder; a package is verified on what it was"):
        found(tmp_path / "c")


def test_lists(tmp_path: Path) -> None:
    put(tmp_path, "x/0.png", "x/1.png", "x/2.png")
    rows = [("x/2.png", "cat", "test"), ("x/0.png", "dog", "test"), ("x/1.png", "dog", "train")]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "".join(f"{p},{c},{s}\n" for p, c, s in rows))
    assert found(tmp_path / "list.csv") == [("x/0.png", 0), ("x/2.png", 1)]
    lines = [json.dumps({"image": p, "class": c}) for p, c, _ in rows]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    images, targets = load_labelled_images(tmp_path / "list.jsonl", CLASSES, Framing(3, 3, 3))
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert targets["label"].tolist() == [0, 0, 1]
    assert name_labelled_images(tmp_path / "list.jsonl", CLASSES) == [str(tmp_path / f"x/{i}.png") for i in range(3)]
    for text, message in (
        ("path,label,split\nx/0.png,dog,train\n", "has a train folder and no test folder"),
        ("path,label,split\nx/0.png,,calibration\n", "has only rows of calibration; a package is verified on those"),
        (
            "path,label\nx/9.png,dog\n",
            r"1 of 1 images are no files below .*\(the first: x/9\.png\); put the list where",
        ),
        ("path,label\nx/0.png,dgo\n", r"list\.csv: 'dgo' is no class of the package; nearest: 'dog'"),
        ("path,label\n../0.png,dog\n", r"list\.csv, line 2: '\.\./0\.png' leads out of the folder"),
    ):
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            found(tmp_path / "list.csv")
    with pytest.raises(InputError, match=r"train-0\.tar holds images inside of one file, which is read where packages"):
        found(tmp_path / "train-0.tar")
    (tmp_path / "hf/data").mkdir(parents=True)
    (tmp_path / "hf/data/test-0.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"hf: data/test-0\.parquet holds images inside of one file"):
        found(tmp_path / "hf")


def test_classes_by_name_synset_or_number(tmp_path: Path) -> None:
    synsets = ("n01440764 tench, Tinca tinca", "n02012849 crane")
    assert found(put(tmp_path / "s", "n02012849/0.png"), synsets) == [("n02012849/0.png", 1)]
    assert found(put(tmp_path / "n", "1/0.png", "0/1.png")) == [("0/1.png", 0), ("1/0.png", 1)]
    with pytest.raises(InputError, match="'0' is no class of the package; the package knows: dog, cat"):
        found(put(tmp_path / "n", "2/0.png"))
    assert class_numbers(["1", "2"], ["2", "1"]) == {"1": 1, "2": 0}
    assert class_numbers(["1", "cat"], CLASSES) == {"1": None, "cat": 1}
    assert class_numbers(["-1"], CLASSES) == {"-1": None}
