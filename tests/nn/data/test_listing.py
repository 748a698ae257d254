from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.listing import image_names

Make = Callable[[Mapping[str, int]], Path]


def test_names_are_those_of_images_in_split_folders(make_folder: Make) -> None:
    root = make_folder({"train/b": 1, "train/a/deeper": 1, "test/a": 1, "elsewhere/a": 1})
    (root / "train/a/NOTES.txt").write_text("no image")
    (root / "train/a/.hidden.png").write_bytes(b"")
    (root / "train/a/x.JPeG").write_bytes(b"any bytes")
    assert image_names(root) == ["test/a/000.png", "train/a/deeper/000.png", "train/a/x.JPeG", "train/b/000.png"]


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path: .*none is not a folder; an imagefolder has none/train/CLASS/"):
        image_names(tmp_path / "none")


def test_a_folder_that_cannot_be_read_is_named(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    root = make_folder({"train/a": 1})
    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match=r"train: cannot be read \(Permission denied\); every image of the set must be"):
        image_names(root)


def test_it_imports_nothing_but_the_standard_library() -> None:
    code = "import dlx_deploy.nn.data.listing, sys; print({'numpy', 'torch', 'PIL', 'sklearn'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
