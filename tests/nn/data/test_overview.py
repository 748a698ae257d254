"""What data look like before anything is decoded."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.overview import overview

from ...conftest import image_folder


def png(side: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, "PNG")
    return file.getvalue()


def test_class_folders(tmp_path: Path) -> None:
    folder = image_folder(image_folder(tmp_path, {"a": 3, "b": 7}, side=10), {"a": 2, "b": 2}, 10, "test")
    seen = overview(Data(kind="imagefolder", path=str(folder)))
    assert (seen.splits, seen.classes, seen.smallest, seen.largest) == ({"test": 4, "train": 10}, ("a", "b"), 3, 7)
    assert (seen.height, seen.width, seen.channels, seen.looked_at) == (10, 13, 3, 14)
    assert seen.count("train", Data(validation_fraction=0.2)) == 8
    assert seen.count("test", Data()) == 4


def test_a_list_of_grey_images(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(png(8 + i, "L"))
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{i}.png,{'xy'[i % 2]}\n" for i in range(6)))
    seen = overview(Data(kind="imagelist", path=str(tmp_path / "list.csv")))
    assert (seen.splits, seen.channels, seen.least_side, seen.most_side) == ({"train": 6}, 1, 8, 13)


def test_images_inside_of_shards(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train-000.tar", "w") as tar:
        for i in range(6):
            for name, content in ((f"{i}.png", png(12)), (f"{i}.cls", str(i % 2).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    seen = overview(Data(kind="webdataset", path=str(tmp_path)))
    assert (seen.splits, seen.classes, seen.height) == ({"train": 6}, ("0", "1"), 12)


def test_damaged_files_are_counted(tmp_path: Path) -> None:
    folder = image_folder(tmp_path, {"a": 3, "b": 3})
    (folder / "train" / "a" / "000.png").write_bytes(b"no image")
    assert overview(Data(kind="imagefolder", path=str(folder))).unreadable == 1


def test_a_kind_without_files_is_refused() -> None:
    with pytest.raises(DataError, match=r"kind 'digits' cannot be looked at; .*dlx-deploy init FILE"):
        overview(Data())
