from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data import images as images_module
from dlx_deploy.nn.data.dataset import SPLITS, open_data
from dlx_deploy.tasks import prepare

Make = Callable[[Mapping[str, int]], Path]


def folder(root: Path, **more: object) -> Data:
    return Data(kind="imagefolder", path=str(root), height=4, **more)  # type: ignore[arg-type]


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_digits_fill_four_splits(tmp_path: Path) -> None:
    metrics = prepare(Data(), tmp_path, 0)
    data = open_data(tmp_path)
    assert metrics == {
        "train_images": 1078.0,
        "calibration_images": 256.0,
        "validation_images": 120.0,
        "test_images": 599.0,
        "classes": 10.0,
    }
    assert (data.classes, data.header.height, data.header.width, data.header.channels) == (tuple("0123456789"), 8, 8, 1)
    images, labels = data.split("train")
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert isinstance(images, np.memmap)
    assert labels.dtype == np.int64
    assert data.header.mean == [pytest.approx(images.mean() / 255, abs=1e-6)]
    assert data.header.std == [pytest.approx(images.std() / 255, abs=1e-6)]


def test_digits_pixels_are_the_scans_stretched_to_bytes(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    scans = load_digits()
    prepare(Data(), tmp_path, 0)
    data = open_data(tmp_path)
    pairs = zip(scans.images, scans.target, strict=True)
    stretched = {(np.rint(scan * 255 / 16).astype(np.uint8).tobytes(), int(label)) for scan, label in pairs}
    for name in SPLITS:
        images, labels = data.split(name)
        assert {(i.tobytes(), int(n)) for i, n in zip(images, labels, strict=True)} <= stretched


def test_splits_are_disjoint_stratified_and_calibration_is_part_of_train(tmp_path: Path) -> None:
    prepare(Data(), tmp_path, 3)
    data = open_data(tmp_path)
    train, validation, test, calibration = (
        rows(data.split(n)[0]) for n in ("train", "validation", "test", "calibration")
    )
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert calibration <= train
    for name in SPLITS:
        counts = np.bincount(data.split(name)[1], minlength=10)
        assert counts.max() - counts.min() <= max(2, 0.05 * counts.sum())


def test_the_first_images_of_a_split_are_of_all_classes(make_folder: Make, tmp_path: Path) -> None:
    root = make_folder({f"{split}/{group}": 40 for split in ("train", "test") for group in "ab"})
    prepare(folder(root), tmp_path / "out", 0)
    for name in SPLITS:
        labels = open_data(tmp_path / "out").split(name)[1]
        assert 0.2 < labels[: len(labels) // 2].mean() < 0.8


def digest(out: Path) -> str:
    return hashlib.sha256(b"".join(p.name.encode() + p.read_bytes() for p in sorted(out.iterdir()))).hexdigest()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(Data(limit_train=50, limit_test=20), tmp_path / name, seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")
    text = (tmp_path / "a" / "dataset.json").read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def test_imagefolder_with_its_own_splits(make_folder: Make, tmp_path: Path) -> None:
    counts = {f"{split}/{group}": n for split, n in (("train", 6), ("val", 2), ("test", 3)) for group in ("dog", "cat")}
    root = make_folder(counts)
    seen: list[tuple[float, float]] = []
    metrics = prepare(folder(root), tmp_path / "out", 0, lambda done, total, text="": seen.append((done, total)))
    data = open_data(tmp_path / "out")
    assert data.classes == ("cat", "dog")
    assert (data.header.height, data.header.width, data.header.channels) == (4, 4, 3)
    assert {n: data.splits[n] for n in ("train", "validation", "test")} == {"train": 12, "validation": 4, "test": 6}
    assert metrics["calibration_images"] == 12
    assert seen[-1] == (6, 6)
    for split in ("train", "validation", "test"):
        expected = set()
        for path in (root / {"validation": "val"}.get(split, split)).rglob("*.png"):
            colour = np.asarray(Image.open(path))[0, 0]
            expected.add((np.broadcast_to(colour, (4, 4, 3)).tobytes(), path.parent.name))
        assert {(image.tobytes(), data.classes[n]) for image, n in zip(*data.split(split), strict=True)} == expected


def test_imagefolder_draws_what_has_no_folder(make_folder: Make, tmp_path: Path) -> None:
    root = make_folder({"train/a": 12, "train/b": 6})
    prepare(folder(root, test_fraction=1 / 3, validation_fraction=0.25), tmp_path / "out", 0)
    data = open_data(tmp_path / "out")
    assert {n: np.bincount(data.split(n)[1]).tolist() for n in ("train", "validation", "test")} == {
        "train": [6, 3],
        "validation": [2, 1],
        "test": [4, 2],
    }


def test_limits_come_before_decoding(make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"train/a": 20, "train/b": 20, "test/a": 10, "test/b": 10})
    decoded: list[int] = []
    real = images_module.decode_all
    monkeypatch.setattr(images_module, "decode_all", lambda n, *a: decoded.append(n) or real(n, *a))
    prepare(folder(root, limit_train=10, limit_test=6, validation_fraction=0.2), tmp_path / "out", 0)
    assert decoded == [8, 2, 6]
    assert np.bincount(open_data(tmp_path / "out").split("test")[1]).tolist() == [3, 3]


def test_suffixes_in_any_case_grey_and_given_normalisation(make_folder: Make, tmp_path: Path) -> None:
    root = make_folder({"train/a": 4, "train/b": 4, "test/a": 1, "test/b": 1})
    Image.fromarray(np.full((9, 9), 200, np.uint8)).save(root / "test/a/x.JPG", format="JPEG")
    prepare(folder(root, width=7, channels=1, mean=(0.5,), std=(0.25,)), tmp_path / "out", 0)
    data = open_data(tmp_path / "out")
    assert data.split("test")[0].shape == (3, 4, 7, 1)
    assert (data.header.mean, data.header.std) == ([0.5], [0.25])


def test_calibration_is_clipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        prepare(Data(limit_train=40, calibration_images=500), tmp_path, 0)
    assert open_data(tmp_path).splits["calibration"] == 36
    assert "data.calibration_images is 500; the training split has 36" in caplog.text


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"test/a": 1}, r"images has no train folder; an imagefolder has train/CLASS"),
        ({"train/a": 3}, r"train: one class only \('a'\); a classifier needs"),
        ({"train": 3}, r"train: no class folder; a classifier needs"),
        ({"train/a": 3, "train/b": 0, "train/c": 0}, r"train/b: no image .*\(2 such\); add images or remove"),
        ({"train/a": 3, "train/b": 3, "test/dog": 1}, r"test: class 'dog' is not in train \(1 such\); train has: a, b"),
        ({"train/a": 1, "train/b": 1}, r"the test split is empty: data\.test_fraction is 0\.333333, .* has 2 images"),
    ],
)
def test_bad_folders(make_folder: Make, tmp_path: Path, counts: Mapping[str, int], message: str) -> None:
    root = make_folder(counts)
    with pytest.raises(DataError, match=message):
        prepare(folder(root), tmp_path / "out", 0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Data(kind="imagefolder"), r"data\.path is empty"),
        (Data(kind="imagefolder", path="somewhere"), r"data\.height is 0"),
        (Data(kind="imagefolder", path="no/such", height=8), r"data\.path: no/such is not a folder"),
        (Data(height=32), r"data\.height is 32; the digits are 8 x 8"),
        (Data(mean=(0.5, 0.5, 0.5)), r"data\.mean has 3 values .*the images have 1 channels"),
        (Data(std=(0.5, 0.5)), r"data\.std has 2 values"),
        (Data(validation_fraction=0.0), r"the validation split is empty: data\.validation_fraction is 0, the"),
        (Data(limit_train=7), r"data\.limit_train is 7 and leaves \d+ of 10 classes without a training image"),
    ],
)
def test_bad_configuration(tmp_path: Path, config: Data, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(config, tmp_path, 0)


def test_corrupt_images_are_counted_and_the_first_named(make_folder: Make, tmp_path: Path) -> None:
    root = make_folder({"train/a": 6, "train/b": 6, "test/a": 3, "test/b": 3})
    for name in ("a/002.png", "b/001.png"):
        (root / "test" / name).write_bytes((root / "test" / name).read_bytes()[:40])
    with pytest.raises(DataError, match=r"2 of 6 images cannot be used; the first: .*test/a/002\.png"):
        prepare(folder(root), tmp_path / "out", 0)


def test_open_data_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    prepare(Data(limit_train=40, limit_test=20), tmp_path, 0)
    data = open_data(tmp_path)
    with pytest.raises(DataError, match=r"no split 'tests'; nearest valid name: 'test'"):
        data.split("tests")
    np.save(tmp_path / "test.labels.npy", np.zeros(3, np.int64))
    with pytest.raises(DataError, match=r"test has labels int64\[3\]; dataset.json says int64\[20\]"):
        data.split("test")
    (tmp_path / "test.labels.npy").write_bytes(b"short")
    with pytest.raises(DataError, match=r"test\.labels\.npy: not a readable array"):
        data.split("test")
    header = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({**header, "schema": 2}))
    with pytest.raises(DataError, match=r"schema is 2; this version reads up to 1; use a newer dlx-deploy"):
        open_data(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({**header, "height": "8"}))
    with pytest.raises(DataError, match=r"not a data set's header"):
        open_data(tmp_path)
    with pytest.raises(DataError, match=r"no prepared data set"):
        open_data(tmp_path / "nowhere")


def test_preparing_and_opening_need_no_torch() -> None:
    code = (
        "import sys, dlx_deploy.nn.data.prepare, dlx_deploy.nn.data.dataset; "
        "print([m for m in ('torch', 'sklearn', 'PIL', 'onnxruntime') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
