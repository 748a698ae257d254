from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from dlx_deploy.errors import DataError
from dlx_deploy.nn.data import fingerprint
from dlx_deploy.nn.data.fingerprint import image_names, tree_digest

Make = Callable[[Mapping[str, int]], Path]


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once, so that what was just written may be remembered."""
    monkeypatch.setattr(fingerprint, "_SETTLE_NS", -60_000_000_000)


def test_names_are_those_of_images_in_split_folders(make_folder: Make) -> None:
    root = make_folder({"train/b": 1, "train/a/deeper": 1, "test/a": 1, "elsewhere/a": 1})
    (root / "train/a/NOTES.txt").write_text("no image")
    (root / "train/a/.hidden.png").write_bytes(b"")
    (root / "train/a/x.JPeG").write_bytes(b"any bytes")
    assert image_names(root) == ["test/a/000.png", "train/a/deeper/000.png", "train/a/x.JPeG", "train/b/000.png"]


def test_digest_follows_contents_and_names_only(make_folder: Make) -> None:
    root = make_folder({"train/a": 2, "train/b": 1})
    first = tree_digest(root)
    os.utime(root / "train/a/000.png", (1, 1))
    (root / "train/a/README").write_text("not an image")
    moved = root.rename(root.with_name("elsewhere"))
    assert tree_digest(moved) == first
    (moved / "train/a/000.png").rename(moved / "train/b/777.png")
    renamed = tree_digest(moved)
    (moved / "train/b/777.png").write_bytes(b"other")
    assert len({first, renamed, tree_digest(moved)}) == 3


@pytest.mark.usefixtures("settled")
def test_unchanged_files_are_not_read_again(make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = make_folder({"train/a": 3}), tmp_path / "below" / "cache.json"
    first = tree_digest(root, cache)
    read: list[str] = []
    real = fingerprint._file_digest
    monkeypatch.setattr(fingerprint, "_file_digest", lambda p: read.append(p.name) or real(p))
    assert tree_digest(root, cache) == first
    assert read == []
    (root / "train/a/001.png").write_bytes(b"changed")
    assert tree_digest(root, cache) != first
    assert read == ["001.png"]


def test_files_touched_just_now_are_not_trusted(make_folder: Make, tmp_path: Path) -> None:
    root, cache = make_folder({"train/a": 1}), tmp_path / "cache.json"
    image = root / "train/a/000.png"
    size, before = image.stat().st_size, tree_digest(root, cache)
    image.write_bytes(bytes(size))  # the same size, within the same tick of the clock
    assert tree_digest(root, cache) != before


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"schema": 1}',
        b'{"listing": "", "schema": 1, "tree": ""}\n{"train/a/000.png": 7}\n',
        b"\xff",
        b"",
    ],
)
def test_a_damaged_cache_only_costs_time(make_folder: Make, tmp_path: Path, content: bytes) -> None:
    root, cache = make_folder({"train/a": 1}), tmp_path / "cache.json"
    cache.write_bytes(content)
    assert tree_digest(root, cache) == tree_digest(root)
    assert tree_digest(root, cache) == tree_digest(root)


@pytest.mark.usefixtures("settled")
def test_a_cache_that_cannot_be_written_is_said(
    make_folder: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_folder({"train/a": 1})
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        digest = tree_digest(root, tmp_path / "file" / "cache.json")
    assert digest == tree_digest(root)
    assert "cannot be written" in caplog.text


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path: .*nowhere is not a folder; an imagefolder has"):
        tree_digest(tmp_path / "nowhere")


def test_unreadable_image_is_named(make_folder: Make) -> None:
    root = make_folder({"train/a": 1})
    (root / "train/a/lost.png").symlink_to(root / "gone")
    with pytest.raises(DataError, match=r"lost\.png: cannot be read \(No such file"):
        tree_digest(root)


def test_it_imports_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, dlx_deploy.nn.data.fingerprint; "
        "print([m for m in ('numpy', 'torch', 'PIL', 'sklearn', 'msgspec') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
