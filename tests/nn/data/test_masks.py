"""Images with masks in folders: what counts, what is refused, and what lands in the artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data import scenes
from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.nn.data.mask_listing import mask_names, named_classes
from dlx_deploy.tasks import prepare, task_for, task_of

from ...masks import mask_folder


def folder_of(path: Path, **more: object) -> Data:
    return Data(kind="maskfolder", path=str(path), height=16, calibration_images=4, **more)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    mask_folder(root, 12)
    return mask_folder(root, 6, "test")


def test_images_and_masks_lie_side_by_side(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "train" / "masks" / "palette.txt").touch()
    counts = prepare(folder_of(folder), tmp_path / "out", 0)
    assert (counts["files_left_out"], "1 files are left out: 1 .txt (the first: palette.txt)" in caplog.text) == (
        1,
        True,
    )
    assert (counts["train_images"], counts["validation_images"], counts["test_images"]) == (11, 1, 6)
    data = open_data(tmp_path / "out")
    assert (data.task, data.classes) == ("semantic-segmentation", ("0", "1", "2"))
    assert task_of(data).name == "semantic-segmentation"
    for split, count in data.splits.items():
        images, masks = data.split(split)
        assert (images.shape, masks.shape, masks.dtype) == ((count, 16, 16, 3), (count, 16, 16), np.uint8)
        assert (masks[:, 0] == 255).all()
        shades = images.astype(int)
        reddish = (shades[..., 0] - shades[..., 2] > 60) & (masks != 255)
        assert ((masks == 1) == reddish).all()


def test_masks_are_resized_without_new_classes(folder: Path, tmp_path: Path) -> None:
    prepare(Data(kind="maskfolder", path=str(folder), height=24, width=8, calibration_images=4), tmp_path / "out", 0)
    masks = open_data(tmp_path / "out").targets("test")
    assert masks.shape == (6, 24, 8)
    assert set(np.unique(masks)) <= {0, 1, 2, 255}


def test_what_is_ignored_is_said_by_the_user(folder: Path, tmp_path: Path) -> None:
    """A value in the range of the classes may be the one; on the way in it becomes 255."""
    for path in folder.rglob("masks/*.png"):
        mask = np.asarray(Image.open(path)).copy()
        mask[mask == 255] = 3
        Image.fromarray(mask).save(path)
    prepare(folder_of(folder, ignore_index=3), tmp_path / "out", 0)
    data = open_data(tmp_path / "out")
    assert (data.classes, data.header.ignore_index) == (("0", "1", "2"), 3)  # type: ignore[attr-defined]
    assert (data.targets("train")[:, 0] == 255).all()
    (folder / "classes.txt").write_text("ground\nred\nblue\nrim\n")
    prepare(folder_of(folder, ignore_index=3), tmp_path / "named", 0)
    prepare(folder_of(folder, ignore_index=0), tmp_path / "ground", 0)
    assert set(np.unique(open_data(tmp_path / "ground").targets("train"))) == {1, 2, 3, 255}
    (folder / "classes.txt").write_text("ground\nred\nblue\n")
    with pytest.raises(DataError, match=r"masks/\d+\.png: holds the value 3; must be 0 to 2, or 255: ignored"):
        prepare(folder_of(folder), tmp_path / "other", 0)


def test_classes_have_the_names_of_a_file(folder: Path, tmp_path: Path) -> None:
    (folder / "classes.txt").write_text("ground\nréd\nblue\n", encoding="utf-8")
    assert "classes.txt" in mask_names(folder)
    prepare(folder_of(folder), tmp_path / "out", 0)
    assert open_data(tmp_path / "out").classes == ("ground", "réd", "blue")
    (folder / "classes.txt").write_bytes("\ufeffground\r\nre\u0301d\r\nblue\r\n\r\n".encode())
    assert named_classes(folder) == ("ground", "réd", "blue")
    for text, message in (
        ("a\n\nb\n", "line 2 is empty; rule: a name for each"),
        ("a\nA\n", "'A' and 'a' look alike"),
        ("a\nb\x1b[31m\n", r"'b\\x1b\[31m' holds a character that cannot be seen"),
        ("a\fb\nc\n", "holds a character that cannot be seen"),
    ):
        (folder / "classes.txt").write_text(text)
        with pytest.raises(DataError, match=message):
            named_classes(folder)


def test_a_class_that_no_pixel_shows(folder: Path, tmp_path: Path) -> None:
    (folder / "classes.txt").write_text("ground\nred\nblue\ngreen\n")
    with pytest.raises(
        DataError, match=r"no pixel of the training masks is of class 'green' \(1 such\), so no network"
    ):
        prepare(folder_of(folder), tmp_path / "out", 0)
    with pytest.raises(DataError, match="no pixel of the training masks is of class 'green'"):
        prepare(folder_of(folder, allow_missing_classes=True), tmp_path / "again", 0)
    (folder / "classes.txt").unlink()
    for path in (folder / "test" / "masks").iterdir():
        mask = np.asarray(Image.open(path)).copy()
        mask[mask == 2] = 0
        Image.fromarray(mask).save(path)
    with pytest.raises(DataError, match=r"the masks of the test split: nothing of class '2' .*allow_missing_classes"):
        prepare(folder_of(folder), tmp_path / "lacking", 0)
    assert prepare(folder_of(folder, allow_missing_classes=True), tmp_path / "allowed", 0)["test_images"] == 6


def test_a_rare_class_is_drawn_into_every_split(tmp_path: Path) -> None:
    """Three of 60 images show it; at random a third of the draws would leave one split without."""
    root = mask_folder(tmp_path / "set", 60)
    for i in (7, 31, 44):
        path = root / "train" / "masks" / f"{i:03}.png"
        mask = np.asarray(Image.open(path)).copy()
        mask[8, 8] = 3
        Image.fromarray(mask).save(path)
    for seed in range(6):
        prepare(folder_of(root), tmp_path / str(seed), seed)
        data = open_data(tmp_path / str(seed))
        assert all((data.targets(name) == 3).any() for name in ("train", "validation", "test")), seed


def test_every_mask_is_looked_at_before_an_image_is_decoded(folder: Path, tmp_path: Path) -> None:
    for name in ("001", "005"):
        Image.new("L", (4, 4)).save(folder / "train" / "masks" / f"{name}.png")
    (folder / "train" / "images" / "000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"3 of 12 masks cannot be used; the first: .*000\.png: cannot be"):
        prepare(folder_of(folder), tmp_path / "out", 0)


def test_a_class_that_training_has_not(folder: Path, tmp_path: Path) -> None:
    path = folder / "test" / "masks" / "000.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[5] = 7
    Image.fromarray(mask).save(path)
    with pytest.raises(DataError, match=r"test/masks/000\.png: holds the value 7, the training masks none above 2"):
        prepare(folder_of(folder), tmp_path / "out", 0)


def test_one_image_under_two_masks_is_said(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, row in (("x", 3), ("y", 5)):
        (folder / "train" / "images" / f"{name}.png").write_bytes((folder / "train/images/000.png").read_bytes())
        mask = np.asarray(Image.open(folder / "train/masks/000.png")).copy()
        mask[row] = 0
        Image.fromarray(mask).save(folder / "train" / "masks" / f"{name}.png")
    counts = prepare(folder_of(folder), tmp_path / "out", 0)
    assert counts["contradictory_images"] == 1
    assert "the network cannot learn" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "train").rename(root / "other"), "has no training split; it needs train/images"),
        (lambda root: (root / "test").rename(root / "valid"), "has 'valid', which is no split's name"),
        (lambda root: (root / "train/masks/000.png").unlink(), r"images/000\.png: has no mask of its name"),
        (lambda root: Image.new("L", (4, 4)).save(root / "train/masks/000.png"), "is 4 x 4 pixels, and its image"),
        (lambda root: Image.new("RGB", (16, 16)).save(root / "train/masks/000.png"), "is a PNG of mode RGB; a mask is"),
        (lambda root: (root / "train/masks/000.png").write_bytes(b"no"), r"masks/000\.png: cannot be decoded"),
    ],
)
def test_folders_that_cannot_be_used(folder: Path, tmp_path: Path, change: object, message: str) -> None:
    assert callable(change)
    change(folder)
    with pytest.raises(DataError, match=message):
        prepare(folder_of(folder), tmp_path / "out", 0)


def test_grey_scenes_and_what_else_their_parts_say_alike(tmp_path: Path) -> None:
    """Sizes and classes are known before any pixel is read; both homes say the same."""
    grey = Data(kind="scenes", channels=1, limit_train=150, limit_test=20, allow_missing_classes=True)
    prepare(grey, tmp_path / "out", 0)
    data, task = open_data(tmp_path / "out"), task_for(grey)
    assert data.split("train")[0].shape[1:] == (32, 32, 1)
    assert task.inputs.spec(data) == task.inputs.expected(grey)
    assert task.classes(grey) == len(data.classes) == len(scenes.CLASSES)
    assert task.inputs.expected(Data(kind="scenes")).height == scenes.SIDE


def test_one_value_is_no_segmentation(tmp_path: Path) -> None:
    mask_folder(tmp_path / "set", 3)
    for path in (tmp_path / "set").rglob("masks/*.png"):
        Image.new("L", (16, 16)).save(path)
    with pytest.raises(DataError, match=r"has 1 classes beside the value 255, .*; rule: 2 to 255, of 8 bits"):
        prepare(folder_of(tmp_path / "set"), tmp_path / "out", 0)


def test_black_and_white_masks_get_the_remedy(tmp_path: Path) -> None:
    """White is 255, which counts for nothing where nobody says otherwise."""
    mask_folder(tmp_path / "set", 3, ignored=False)
    for path in (tmp_path / "set").rglob("masks/*.png"):
        Image.fromarray(np.where(np.asarray(Image.open(path)) > 0, 255, 0).astype(np.uint8)).save(path)
    with pytest.raises(DataError, match=r"beside the value 255, .*of two classes the pixels are 0 and 1"):
        prepare(folder_of(tmp_path / "set"), tmp_path / "out", 0)
