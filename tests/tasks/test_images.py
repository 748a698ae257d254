"""What ``[data]`` says of images, whatever their task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.config import Data
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.nn.data.frames import framing_of, rescaled
from dlx_deploy.nn.data.images import ImageSource
from dlx_deploy.nn.data.targets import ClassTargets
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.package.fields import Fields
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_inputs import read_framing
from dlx_deploy.runtime.tasks.labelled import load_labelled_images
from dlx_deploy.tasks import find_task, prepare
from dlx_deploy.tasks.images import Images, image_header

MARKS = Images({"marks": (6, 9, 1)})


@pytest.mark.parametrize(
    ("data", "spec"),
    [
        (Data(kind="marks"), ImageInput(1, 6, 9)),
        (Data(kind="marks", channels=3, height=6, width=9), ImageInput(3, 6, 9)),
        (Data(kind="files", height=20), ImageInput(3, 20, 20)),
        (Data(kind="files", height=20, width=30, channels=1), ImageInput(1, 20, 30)),
    ],
)
def test_built_in_kinds_have_their_own_size(data: Data, spec: ImageInput) -> None:
    MARKS.check(data)
    assert MARKS.expected(data) == spec


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(kind="marks", width=6), r"data\.width is 6; the marks are 6 x 9: leave it out"),
        (Data(kind="marks", mean=(0.1, 0.2, 0.3)), r"data\.mean has 3 values .*; the images have 1 channels"),
        (Data(kind="files"), r"data\.height is 0; data\.kind 'files' needs the height"),
        (Data(kind="marks", resize="crop"), r"data\.resize is 'crop'; the marks are no image files, .*: leave it out"),
        (
            Data(kind="files", height=9, crop_fraction=0.9, resize_size=(10,)),
            r"is 0\.9 and data\.resize_size",
        ),
        (
            Data(kind="files", height=9, resize_size=(8,)),
            r"the box is \[8, 8\]; must be .* correct data\.",
        ),
        (Data(kind="files", height=9, fill=(0,)), r"data\.fill is \[0\] and data\.resize ''; only 'letterbox' pads"),
        (
            Data(kind="files", height=9, resize="letterbox", fill=(0, 1)),
            r"data: fill is \[0, 1\]; must be one",
        ),
        (
            Data(kind="files", height=9, color_order="bgr", channels=1),
            r"'bgr' and data\.channels is 1; grey has",
        ),
        (
            Data(kind="files", height=9, scale=1.0),
            r"data\.scale is 1, and data\.mean or data\.std is not",
        ),
    ],
)
def test_other_sizes_are_refused(data: Data, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MARKS.check(data)


@pytest.mark.parametrize(
    ("data", "framing"),
    [
        (Data(height=224), Framing(224, 224, 3)),
        (Data(height=224, crop_fraction=0.875), Framing(224, 224, 3, "crop", (256, 256))),
        (Data(height=224, resize="squash", crop_fraction=1.0), Framing(224, 224, 3)),
        (
            Data(height=224, crop_fraction=0.875, crop_offset="floor"),
            Framing(224, 224, 3, "crop", (256, 256), crop_offset="floor"),
        ),
        (Data(height=260, crop_fraction=0.904), Framing(260, 260, 3, "crop", (287, 287))),
        (Data(height=224, width=320, crop_fraction=0.8), Framing(224, 320, 3, "crop", (280, 400))),
        (
            Data(height=224, resize_size=(232,), interpolation="bicubic"),
            Framing(224, 224, 3, "crop", (232, 232), "bicubic"),
        ),
        (Data(height=8, width=9, resize_size=(9, 12), channels=1), Framing(8, 9, 1, "crop", (9, 12))),
        (
            Data(height=9, resize="letterbox", fill=(114,), color_order="bgr"),
            Framing(9, 9, 3, "letterbox", (), "bilinear", (114,), "bgr"),
        ),
    ],
)
def test_the_frame_that_the_keys_describe(data: Data, framing: Framing) -> None:
    assert framing_of(data) == framing


def test_a_scale_is_folded_into_mean_and_deviation() -> None:
    assert rescaled([127.5, 51.0], 1.0) == [0.5, 0.2]
    assert rescaled([0.485], 0.0) == rescaled([0.485], 1 / 255) == [0.485]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"resize": "crop", "crop_fraction": 0.8, "interpolation": "bicubic", "color_order": "bgr"},
        {"resize": "letterbox", "fill": (7, 8, 9), "interpolation": "nearest"},
        {"resize": "crop", "crop_fraction": 0.7, "crop_offset": "floor"},
    ],
)
def test_training_and_device_see_the_same_pixels(tmp_path: Path, keys: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for name in ("a", "b"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (20 + 9 * i, 31, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / name / f"{i}.png")
    prepare(Data(kind="imagefolder", path=str(tmp_path / "set"), height=12, **keys), tmp_path / "out", 0)
    data = open_data(tmp_path / "out")
    assert ("frame" in json.loads((tmp_path / "out" / "dataset.json").read_text())) == bool(keys)
    told = find_task(data.task).inputs.preprocessing(data)
    assert (told["resize"] == "bilinear") == (not keys)  # what readers of old apply, and refuse otherwise
    known_before = ("bilinear", "squash", "crop", "letterbox")
    assert (told["resize"] in known_before) == ("crop_offset" not in keys)
    shape = {"name": "images", "dtype": "uint8", "shape": ["batch", 12, 12, 3], "layout": "NHWC"}
    fields = json.loads(json.dumps({"inputs": [shape], "preprocessing": told}))
    framing = read_framing(Fields(fields, "x.dlx"))
    assert framing == image_header(data).framing
    images, _ = load_labelled_images(tmp_path / "set", data.classes, framing)
    stored, _ = data.split("test")
    assert {one.tobytes() for one in images} == {one.tobytes() for one in stored}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"resize": "stretch"},
            "preprocessing.resize is 'stretch'; must be one of bilinear, squash, crop, letterbox, squash-floor",
        ),
        ({"resize": "crop-round"}, "preprocessing.resize is 'crop-round'; must be one of"),
        ({"resize": 5}, "preprocessing.resize is 5; must be of type str"),
        ({"resize": "crop", "resize_size": [9, 12]}, r"the box is \[9, 12\]; must be .* at least 12 and 12"),
        (
            {"resize": "crop", "resize_size": [10**9, 12]},
            "resize_size is .*; must be whole numbers, 0 to 65536",
        ),
        ({"resize": "crop", "resize_size": [True, 12]}, "preprocessing.resize_size is .*; must be whole numbers"),
        ({"resize": "crop", "interpolation": "sinc"}, "interpolation is 'sinc'; must be one of nearest"),
        ({"resize": "letterbox", "fill": [300]}, r"fill is \[300\]; must be .* 0 to 255"),
        ({"resize": "crop", "color_order": None}, "preprocessing.color_order is None; must be of type str"),
        (
            {"resize": "bilinear", "interpolation": "bicubic"},
            "resize is 'bilinear'; must be another where",
        ),
        ({"interpolation": "bicubic"}, "resize is 'bilinear'; must be another where"),
    ],
)
def test_a_package_s_fields_that_are_not_applied(fields: dict[str, Any], message: str) -> None:
    shape = {"name": "images", "dtype": "uint8", "shape": ["batch", 12, 12, 3], "layout": "NHWC"}
    with pytest.raises(PackageError, match=message):
        read_framing(Fields({"inputs": [shape], "preprocessing": fields}, "x.dlx"))


def test_a_source_that_reads_no_files_refuses_their_frame() -> None:
    data = Data(kind="marks", resize="crop")
    with pytest.raises(DataError, match=r"data\.kind is 'marks', whose images are no files; resize, .*: leave"):
        ImageSource((), ClassTargets({}), (6, 9, 1), lambda *a: None, lambda *a: "", data)
