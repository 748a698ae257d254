"""Image folders as people have them: build and device count the same files, and nothing is lost without a word."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.nn.data.listing import image_names, list_folder, warn_once
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.filenames import IMAGE_SUFFIXES
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.labelled import load_labelled_images
from dlx_deploy.tasks import prepare

Change = Callable[[Path], object]
NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def _say_again() -> None:
    warn_once.cache_clear()


def picture(path: Path) -> Path:
    """An image that no other is like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(next(NUMBERS)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pictures(root: Path, **counts: int) -> None:
    for folder, count in counts.items():
        for i in range(count):
            picture(root / folder.replace("__", "/") / f"{i}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pictures(tmp_path / "set", train__a=8, train__b=8, test__a=4, test__b=4)
    return tmp_path / "set"


def build(root: Path, out: Path, **more: Any) -> dict[str, float]:
    options = {"height": 8, "validation_fraction": 0.2, **more}
    return prepare(Data(kind="imagefolder", path=str(root), **options), out, 0)


def every_format(root: Path) -> None:
    for i, suffix in enumerate(IMAGE_SUFFIXES):
        picture(root / f"test/a/x{i}{suffix}")
        picture(root / f"train/b/x{i}{suffix.upper()}")


def nested(root: Path) -> None:
    pictures(root, test__a__monday=1, test__a__monday__noon=1, train__b__1=2)


def litter(root: Path) -> None:
    for split in ("train", "test"):
        pictures(root / split, **{"@eaDir": 2, ".ipynb_checkpoints": 2, "__MACOSX": 2, "a/@eaDir": 2})
        (root / split / "a" / "Thumbs.db").write_bytes(b"thumbs")
        (root / split / ".DS_Store").write_bytes(b"store")


def linked(root: Path) -> None:
    (root / "test/a/link.png").symlink_to(picture(root.parent / "elsewhere.png"))


def capital(root: Path) -> None:
    (root / "test").rename(root / "Test")
    (root / "train").rename(root / "TRAIN")


@pytest.mark.parametrize(
    ("change", "train", "test"),
    [
        (lambda root: None, 16, 8),
        (every_format, 23, 15),
        (nested, 18, 10),
        (litter, 16, 8),
        (linked, 16, 9),
        (capital, 16, 8),
    ],
)
def test_build_and_device_count_the_same_images(
    root: Path, tmp_path: Path, change: Change, train: int, test: int
) -> None:
    change(root)
    counts = build(root, tmp_path / "out")
    data = open_data(tmp_path / "out")
    assert counts["train_images"] + counts["validation_images"] == train
    assert counts["test_images"] == test
    assert counts["files_left_out"] == 0
    assert len(image_names(root)) == train + test
    images, targets = load_labelled_images(root, data.classes, Framing(8, 8, 3))
    labels = targets["label"]
    built = {(image.tobytes(), int(label)) for image, label in zip(*data.split("test"), strict=True)}
    assert {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)} == built


def test_what_is_left_out_is_counted_and_said_on_both_sides(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(3):
        picture(root / f"test/a/{i}.gif")
    picture(root / "train/loose.png")
    (root / "test/b/labels.txt").write_text("b")
    picture(root / "preview.png")
    (root / "test.zip").write_bytes(b"PK")
    (root / "train.py").write_text("a program")
    pictures(root, old_pictures__a=1)
    with caplog.at_level(logging.WARNING):
        assert build(root, tmp_path / "out")["files_left_out"] == 7
        load_labelled_images(root, ("a", "b"), Framing(8, 8, 3))
    assert (
        "set: 7 files are left out: 3 .gif, 2 .png in no class folder, 1 .txt, 1 .zip (the first: preview.png)"
        in caplog.text
    )
    assert "the images in old_pictures are left out; splits are train, validation and test" in caplog.text
    assert "test: 4 files are left out: 3 .gif, 1 .txt" in caplog.text
    assert caplog.text.count("7 files are left out") == 1


def empty_class(root: Path) -> None:
    for path in (root / "test/b").iterdir():
        path.unlink()


def no_class(root: Path) -> None:
    empty_class(root)
    (root / "test/b").rmdir()


def other_format_only(root: Path) -> None:
    empty_class(root)
    picture(root / "test/b/0.gif")


def empty_test(root: Path) -> None:
    for path in [*(root / "test").rglob("*.png")]:
        path.unlink()


def case(root: Path) -> None:
    (root / "test/a").rename(root / "test/A")


def both(root: Path) -> None:
    pictures(root, validation__a=1, val__b=1)


def meant(root: Path) -> None:
    (root / "test").rename(root / "valid")


def link_to_itself(root: Path) -> None:
    (root / "test/a/loop").symlink_to(root / "test")


@pytest.mark.parametrize("change", [empty_class, no_class, other_format_only])
def test_a_class_that_a_split_lacks_is_refused_unless_it_may(
    root: Path, tmp_path: Path, change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    change(root)
    with pytest.raises(
        DataError, match=r"set/test: nothing of class 'b' \(1 such\).*data\.allow_missing_classes = true"
    ):
        build(root, tmp_path / "out")
    with caplog.at_level(logging.WARNING):
        assert build(root, tmp_path / "out", allow_missing_classes=True)["test_images"] == 4
    assert "test: nothing of class 'b' (1 such): nothing is known of the network there" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (empty_test, r"set/test: no image \(\.bmp, .*\) in any class folder; add images, or remove the folder to have"),
        (case, r"set/test: class 'A' is not in train .*has: a, b; 'a' differs in its writing only: rename one of them"),
        (both, r"'val' and 'validation' are both the validation split; keep one of them"),
        (meant, r"set has 'valid', which is no split's name; call it train, validation \(or val\) or test"),
        (link_to_itself, r"loop: a link that leads back to a folder that holds it"),
    ],
)
def test_folders_that_would_be_something_else(root: Path, tmp_path: Path, change: Change, message: str) -> None:
    change(root)
    with pytest.raises(DataError, match=message):
        build(root, tmp_path / "out")


def test_a_plan_refuses_the_folder_before_anything_runs(root: Path, tmp_path: Path) -> None:
    from dlx_deploy.building import load_work

    options = ["data.kind=imagefolder", f"data.path='{root}'", "data.height=8"]
    load_work(None, None, options, tmp_path / "store")
    no_class(root)
    with pytest.raises(DataError, match="nothing of class 'b'"):
        load_work(None, None, options, tmp_path / "store")
    load_work(None, None, [*options, "data.allow_missing_classes=true"], tmp_path / "store")


def test_a_draw_or_a_limit_that_leaves_a_class_out_of_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures(tmp_path / "set", train__a=20, train__b=20, train__c=1)
    with pytest.raises(DataError, match=r"the test split of data\.test_fraction = 0\.333333: nothing of class 'c'"):
        build(tmp_path / "set", tmp_path / "out")
    with caplog.at_level(logging.WARNING):
        build(tmp_path / "set", tmp_path / "out", allow_missing_classes=True)
    assert "the test split of data.test_fraction = 0.333333: nothing of class 'c' (1 such)" in caplog.text
    assert "the validation split of data.validation_fraction = 0.2: nothing of class 'c' (1 such)" in caplog.text
    with pytest.raises(DataError, match=r"the test split of data\.limit_test = 1 and data\.test_fraction = "):
        prepare(Data(limit_test=1), tmp_path / "digits", 0)


def test_numbers_as_class_names_are_in_their_order_everywhere(tmp_path: Path) -> None:
    names = [str(i) for i in range(12)]
    pictures(tmp_path / "set", **{f"{split}__{name}": 3 for split in ("train", "test") for name in names})
    build(tmp_path / "set", tmp_path / "out", validation_fraction=0.4)
    data = open_data(tmp_path / "out")
    assert data.classes == tuple(names) == list_folder(tmp_path / "set").classes
    images, targets = load_labelled_images(tmp_path / "set", data.classes, Framing(8, 8, 3))
    by_pixels = {image.tobytes(): int(label) for image, label in zip(*data.split("test"), strict=True)}
    assert [by_pixels[image.tobytes()] for image in images] == targets["label"].tolist()


def test_class_folders_in_both_forms_of_unicode(tmp_path: Path) -> None:
    pictures(tmp_path / "set", **{"train/caf\u00e9": 6, "train/bar": 6, "test/cafe\u0301": 2, "test/bar": 2})
    build(tmp_path / "set", tmp_path / "out")
    assert open_data(tmp_path / "out").classes == ("bar", "caf\u00e9")
    for label in ("caf\u00e9", "cafe\u0301"):
        assert load_labelled_images(tmp_path / "set", ("bar", label), Framing(8, 8, 3))[1]["label"].tolist() == [
            0,
            0,
            1,
            1,
        ]


def test_names_that_are_not_utf8_are_refused_on_both_sides(root: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (root / split / "a").rename(root / split / "caf\udce9")
    for attempt in (
        lambda: build(root, tmp_path / "out"),
        lambda: load_labelled_images(root, ("b",), Framing(8, 8, 3)),
    ):
        with pytest.raises((DataError, InputError), match=r"set/test: the name b'caf\\xe9' is not UTF-8; rename it"):
            attempt()


MODES = {
    "palette.png": lambda image: image.quantize(16),
    "alpha.png": lambda image: image.convert("RGBA"),
    "grey-alpha.png": lambda image: image.convert("LA"),
    "bits.png": lambda image: image.convert("1"),
    "cmyk.jpg": lambda image: image.convert("CMYK"),
    "sixteen.png": lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
    "plain.webp": lambda image: image,
    "plain.tif": lambda image: image,
}


@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_image_is_the_same_to_the_byte_on_both_sides(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(0)
    for split, group in ((s, g) for s in ("train", "test") for g in "ab"):
        for name, make in MODES.items():
            image = Image.fromarray(rng.integers(0, 256, (11, 14, 3), dtype=np.uint8))
            (tmp_path / "set" / split / group).mkdir(parents=True, exist_ok=True)
            make(image).save(tmp_path / "set" / split / group / name)
        turned = Image.fromarray(rng.integers(0, 256, (11, 14, 3), dtype=np.uint8))
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(tmp_path / "set" / split / group / "turned.jpg", exif=exif)
    build(tmp_path / "set", tmp_path / "out", height=7, width=9, channels=channels)
    images, _ = open_data(tmp_path / "out").split("test")
    assert len(images) == 2 * (len(MODES) + 1)
    there, _ = load_labelled_images(tmp_path / "set", ("a", "b"), Framing(7, 9, channels))
    assert sorted(image.tobytes() for image in images) == sorted(image.tobytes() for image in there)


def test_tables_in_any_case_and_what_is_left_out_beside_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def table(name: str, start: int, count: int = 20) -> None:
        rows = "".join(f"text {start + i},{'ab'[i % 2]}\n" for i in range(count))
        (tmp_path / name).write_text(f"text,label\n{rows}")

    table("TRAIN.csv", 0)
    table("val.CSV", 100)
    table("Test.csv", 200)
    for name in ("train.tsv", "test.csv.gz", "notes.csv"):
        (tmp_path / name).write_text("x")
    with caplog.at_level(logging.WARNING):
        counts = prepare(Data(kind="text", path=str(tmp_path)), tmp_path / "out", 0)
    assert {name: counts[f"{name}_texts"] for name in ("train", "validation", "test")} == {
        "train": 20, "validation": 20, "test": 20,
    }  # fmt: skip
    assert (counts["files_left_out"], counts["copies_left_out"], counts["contradictory_texts"]) == (3, 0, 0)
    assert "3 files are left out (the first: notes.csv); a split is train, validation (or val) or test" in caplog.text
    table("dev.csv", 300)
    with pytest.raises(DataError, match=r"has 'dev', which is no split's name"):
        prepare(Data(kind="text", path=str(tmp_path)), tmp_path / "out", 0)


def test_texts_are_told_from_their_copies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "train.csv").write_text(f"text,label\n{rows} text  99 ,b\ntext 3,a\n")
    (tmp_path / "test.csv").write_text("text,label\ntext 99,b\ntext 98,a\n")
    with caplog.at_level(logging.WARNING):
        counts = prepare(Data(kind="text", path=str(tmp_path)), tmp_path / "out", 0)
    assert (counts["copies_left_out"], counts["contradictory_texts"]) == (2, 1)
    assert "1 of them had another label than the text that was kept: correct them" in caplog.text
    (tmp_path / "test.csv").write_text("text,label\ntext 99,b\n")
    with pytest.raises(DataError, match=r"test\.csv: nothing of class 'a' \(1 such\).*allow_missing_classes = true"):
        prepare(Data(kind="text", path=str(tmp_path)), tmp_path / "out", 0)
