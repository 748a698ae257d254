"""Which files are labelled images: what counts, what is passed over, what is left out and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.filenames import IMAGE_SUFFIXES
from dlx_deploy.runtime.tasks.folders import counted, list_classes, list_images, split_entries


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"any")


def test_there_is_one_list_of_formats() -> None:
    from dlx_deploy.nn.data import listing

    assert listing.IMAGE_SUFFIXES is IMAGE_SUFFIXES


def test_what_counts_and_what_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, *(f"cat/{i}{suffix.upper()}" for i, suffix in enumerate(IMAGE_SUFFIXES)))
    touch(
        tmp_path, "dog/session 1/deep/x.png", "cat/animated.gif", "cat/notes.txt", "cat/raw", "loose.jpg", "README.md"
    )
    (tmp_path / "empty").mkdir()
    listing = list_classes(tmp_path)
    assert [group for _, group in listing.images] == ["cat"] * 7 + ["dog"]
    assert listing.images[-1][0] == "dog/session 1/deep/x.png"
    assert listing.classes == ("cat", "dog", "empty")
    assert set(listing.left_out) == {"README.md", "cat/animated.gif", "cat/notes.txt", "cat/raw", "loose.jpg"}
    assert counted(listing.left_out) == "1 .gif, 1 .jpg in no class folder, 1 .md, 1 .txt, 1 without suffix"
    assert counted(["a/1.gif", "a/2.gif", "a/x.txt"]) == "2 .gif, 1 .txt"


@pytest.mark.parametrize(
    "litter",
    [
        ".DS_Store", "._0.png", ".ipynb_checkpoints/0.png", "@eaDir/0.png/SYNO_THUMB.jpg", "__MACOSX/0.png",
        "Thumbs.db", "desktop.ini", "lost+found/0.png", "#recycle/0.png",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["", "cat/", "cat/deep/"])
def test_what_systems_leave_behind_is_neither_a_class_nor_an_image(tmp_path: Path, place: str, litter: str) -> None:
    touch(tmp_path, "cat/0.png", place + litter)
    listing = list_classes(tmp_path)
    assert (listing.images, listing.classes, listing.left_out) == ((("cat/0.png", "cat"),), ("cat",), ())


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/x.png", "set/cat/0.png")
    (tmp_path / "set/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/cat/1.png").symlink_to(tmp_path / "elsewhere/x.png")
    assert [name for name, _ in list_classes(tmp_path / "set").images] == ["cat/0.png", "cat/1.png", "dog/x.png"]
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "set")
    with pytest.raises(InputError, match=r"back: a link that leads back to a folder that holds it; remove it"):
        list_classes(tmp_path / "set")


@pytest.mark.parametrize("kind", ["nowhere", "itself", "fifo"])
def test_an_image_that_is_no_file(tmp_path: Path, kind: str) -> None:
    touch(tmp_path, "cat/0.png")
    path = tmp_path / "cat/1.png"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "itself" else tmp_path / "none.png")
    with pytest.raises(InputError, match=r"cat/1\.png: a link that leads nowhere, or no regular file; replace or"):
        list_classes(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((b"caf\xe9/0.png",), r"the name b'caf\\xe9' is not UTF-8; rename it"),
        ((b"cat/\xff.png",), r"cat: the name b'\\xff\.png' is not UTF-8; rename it"),
        ((b"ca\nt/0.png",), r"the class folder 'ca\\nt' has a control character in its name; rename it"),
        ((b"cat/0.png", b"Cat/0.png"), r"the classes 'Cat' and 'cat' differ in their writing only; make them one"),
        ((b"1/0.png", b"01/0.png"), r"the classes '01' and '1' differ in their writing only"),
        (("caf\u00e9/0.png".encode(), "cafe\u0301/0.png".encode()), r"'caf\\xe9' differ in their writing only"),
    ],
)
def test_names_that_cannot_be_classes(tmp_path: Path, names: tuple[bytes, ...], message: str) -> None:
    for name in names:
        path = os.fsencode(tmp_path) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass
    with pytest.raises(InputError, match=message):
        list_classes(tmp_path)


def test_classes_are_composed_unicode(tmp_path: Path) -> None:
    touch(tmp_path, "cafe\u0301/0.png")
    assert list_classes(tmp_path).images == (("cafe\u0301/0.png", "caf\u00e9"),)


def test_splits_in_any_case_and_each_once() -> None:
    assert split_entries(["Train", "VAL", "test", "other"], "x") == {
        "train": "Train",
        "validation": "VAL",
        "test": "test",
    }
    for pair in (["val", "validation"], ["Test", "test"]):
        with pytest.raises(InputError, match=r"x: '\w+' and '\w+' are both the \w+ split; keep one of them"):
            split_entries(pair, "x")


def test_images_of_a_folder_and_what_else_is_there(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "a.jpg", "b/notes.txt", ".hidden.png", "b/Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path) == (["a.jpg", "b/2.PNG"], ["b/notes.txt"])
    (tmp_path / "b" / "again").symlink_to(tmp_path)
    with pytest.raises(InputError, match="a link that leads back to a folder that holds it"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        list_images(tmp_path / "none")
