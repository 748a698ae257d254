"""Packages that give a class for each pixel: masks in, masks out, mean intersection over union."""

from __future__ import annotations

import base64
import io
import json
import struct
import unicodedata
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from dlx_deploy.runtime.backends.table import BackendOptions
from dlx_deploy.runtime.commands.bench import BenchOptions, bench_package
from dlx_deploy.runtime.commands.main import main
from dlx_deploy.runtime.commands.selftest import self_test
from dlx_deploy.runtime.commands.verify import verify_package
from dlx_deploy.runtime.errors import BudgetMissed, InputError, PackageError, SelfTestFailed
from dlx_deploy.runtime.package.archive import to_json, write_archive
from dlx_deploy.runtime.package.contents import PackageContents, assemble, make_reference, parse_package
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.tasks.arrays import Tolerance
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.images import load_image
from dlx_deploy.runtime.tasks.mask_counts import confusion_counts, mean_iou
from dlx_deploy.runtime.tasks.mask_files import draw_mask, image_size, load_mask, load_pair
from dlx_deploy.runtime.tasks.mask_folders import labelled_pairs
from dlx_deploy.runtime.tasks.mask_verdicts import MaskVerification
from dlx_deploy.runtime.tasks.semantic_segmentation import semantic_segmentation
from dlx_deploy.runtime.tasks.task import PredictOptions

SHAPE = (4, 6, 3)
LABELS = ["red", "green", "blue"]
TASK = semantic_segmentation(Framing(*SHAPE), LABELS)


def network(shift: int = 0) -> bytes:
    """A pixel's class is its brightest channel; ``shift`` moves the answers by so many classes."""
    order = np.array([(k - shift) % 3 for k in range(3)], np.int64)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["nchw", "order"], ["logits"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3, *SHAPE[:2]])],
        [numpy_helper.from_array(order, "order")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def scenes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images whose brightest channel is the mask's class; the last column of each mask is ignored."""
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, 3, (count, *SHAPE[:2]), np.uint8)
    images = rng.integers(0, 100, (count, *SHAPE), np.uint8)
    images += (np.eye(3, dtype=np.uint8) * 150)[masks]
    masks[:, :, -1] = 255
    return images, masks


IMAGES, MASKS = scenes(200)


def logits(images: np.ndarray) -> np.ndarray:
    return np.moveaxis(images, 3, 1).astype(np.float32)


def contents(helpers: Any, shift: int = 0) -> PackageContents:
    columns = TASK.outputs.record({"logits": logits(IMAGES)}, {"mask": MASKS})
    return PackageContents(
        task=TASK,
        metadata=helpers.metadata(),
        model=network(shift),
        golden_inputs={"images": IMAGES[:3]},
        golden_outputs={"logits": logits(IMAGES[:3])},
        tolerances={"logits": Tolerance(1e-3, 0)},
        reference=make_reference(TASK, {"images": IMAGES}, columns),
        manifest=b"{}\n",
        model_card="# pixels\n",
    )


def opened(packed: PackageContents) -> Predictor:
    return Predictor(parse_package(assemble(packed), "x.dlx"), BackendOptions(threads=1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("images", "masks"):
        (tmp_path / "data" / "Test" / kind).mkdir(parents=True)
    for i in range(200):
        Image.fromarray(IMAGES[i]).save(tmp_path / "data" / "Test" / "images" / f"{i:03}.png")
        Image.fromarray(MASKS[i]).save(tmp_path / "data" / "Test" / "masks" / f"{i:03}.png")
    return tmp_path / "data"


def test_it_answers_and_tests_itself(helpers: Any) -> None:
    predictor = opened(contents(helpers))
    found = predictor.predict(IMAGES[0])
    counted = MASKS[0] != 255
    assert (found.classes[0][counted] == MASKS[0][counted]).all()
    assert found.classes.dtype == np.uint8
    assert sum(found.to_dict()["shares"][0].values()) == pytest.approx(1)
    assert repr(found) == "Segmentations(1: 4x6 pixels each)"
    assert self_test(predictor).images == 3
    assert bench_package(predictor, BenchOptions(rounds=3, warmup=0)).latency.n == 3
    with pytest.raises(SelfTestFailed, match=r"golden image 0 differs .* of pixel \d, \d is .*; \d+ of 24 pixels have"):
        self_test(opened(contents(helpers, shift=1)))


def test_counts_are_those_of_each_class() -> None:
    answer = np.array([[[0, 0, 1], [2, 2, 2]]], np.uint8)
    truth = np.array([[[0, 1, 1], [2, 255, 0]]], np.uint8)
    counts = confusion_counts(answer, truth, 3)
    assert counts[0].tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert mean_iou(counts.astype(float)) == pytest.approx([(1 / 3 + 1 / 2 + 1 / 2) / 3])
    absent = np.array([[[4.0, 0, 1], [0, 1, 0]]])
    assert mean_iou(absent) == pytest.approx([4 / 5])  # a class that no mask has does not count by itself


def judged(predictor: Predictor, masks: np.ndarray = MASKS, **budgets: Any) -> MaskVerification:
    own = replace(predictor.package.budgets, **budgets)
    found = verify_package(predictor, {"images": IMAGES}, {"mask": masks}, own).judgement
    assert isinstance(found, MaskVerification)
    return found


def test_the_gate(helpers: Any) -> None:
    good = judged(opened(contents(helpers)), max_drop=0.05)
    assert (good.verdict.verdict, good.verdict.package, good.changed) == ("pass", 1, 0)
    assert good.iou == {"red": 1.0, "green": 1.0, "blue": 1.0}
    assert json.loads(json.dumps(good.to_dict()))["verdict"]["metric"] == "mIoU"
    bad = judged(opened(contents(helpers, shift=1)))
    assert (bad.verdict.verdict, bad.verdict.package, bad.verdict.teacher) == ("fail", 0, 1)
    assert bad.lines("images")[0] == "mIoU: teacher 100.00 %, package 0.00 % on 200 images"
    assert good.floor is None
    floored = judged(opened(contents(helpers)), max_drop=0.05, min_accuracy=0.9)
    assert (floored.floor.verdict, floored.failure()) == ("pass", None)
    low = judged(opened(contents(helpers, shift=1)), max_drop=0.99, min_accuracy=0.5)
    assert (low.floor.verdict, type(low.failure())) == ("fail", BudgetMissed)
    assert low.lines("images")[-1].startswith(
        "classes that drop: 'blue' 100.00 points (IoU 100.00 % to 0.00 %, shown by"
    )
    assert low.lines("images")[-2].startswith("the masks of 200 of 200 images changed by more than 10.00 points")
    assert low.lines("images")[-3].startswith("mIoU is 0.00 % on 200 samples, at most")


def test_masks_that_have_changed_need_the_teacher(helpers: Any) -> None:
    predictor = opened(contents(helpers))
    masks = MASKS.copy()
    masks[0, 0, 0] = (masks[0, 0, 0] + 1) % 3
    with pytest.raises(
        InputError,
        match=r"1 of 200 masks \(first: number 0\) are others than when the package was built.*--teacher model\.onnx",
    ):
        judged(predictor, masks)
    teacher = {"logits": logits(IMAGES)}
    found = verify_package(predictor, {"images": IMAGES}, {"mask": masks}, None, teacher).judgement
    assert found.to_dict()["changed"] == 1


def test_an_image_that_is_there_twice_has_a_row_for_each_mask(helpers: Any) -> None:
    """A build counts it and says so; a device must not take one mask for a change of the other."""
    images, masks = np.concatenate([IMAGES, IMAGES[:1]]), np.concatenate([MASKS, MASKS[1:2]])
    columns = TASK.outputs.record({"logits": logits(images)}, {"mask": masks})
    twice = replace(contents(helpers), reference=make_reference(TASK, {"images": images}, columns))
    predictor = opened(twice)
    for order in (slice(None), slice(None, None, -1)):
        found = verify_package(predictor, {"images": images[order]}, {"mask": masks[order]}).judgement
        assert (found.to_dict()["changed"], found.to_dict()["verdict"]["units"]) == (0, 201)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (MASKS[:5], "there are 200 images and 5 masks; must be as many"),
        (MASKS[:, :2], r"masks are \[200, 2, 6\]; must be \[N, 4, 6\]"),
        (np.full_like(MASKS, 3), "masks hold class 3; must be 0 to 2, or 255: ignored"),
        (MASKS * 0.4, r"masks are float64\[200, 4, 6\]; must be uint8\[N, 4, 6\], a class for each pixel, or 255"),
        (MASKS.astype(np.int64), r"masks are int64\[200, 4, 6\]"),
        (MASKS.astype(np.int8) - 1, r"masks are int8\[200, 4, 6\]"),
        (MASKS[..., None], r"masks are uint8\[200, 4, 6, 1\]"),
        (np.uint8(0), r"masks are uint8\[\]"),
    ],
)
def test_masks_that_do_not_fit(helpers: Any, masks: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        judged(opened(contents(helpers)), masks)


def test_every_command(helpers: Any, folder: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "x.dlx"
    write_archive(path, assemble(contents(helpers)))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments), str(path))
        return (code, *capsys.readouterr())

    assert "classes  3, for each pixel: red, green, blue" in run("inspect")[1]
    assert "every pixel's class the same but for ties, logits within" in run("selftest")[1]
    code, out, err = run("verify", "--data", str(folder), "--max-drop", "0.05", "--max-class-drop", "0.05")
    assert "all 3 classes keep to their budgets at 0.95 confidence; the nearest: 'green' 0.00 points" in out
    assert (code, err) == (0, "")
    assert "mIoU drop 0.00 points on 200 samples, at most" in out
    other = folder / "Test" / "masks" / "007.png"
    Image.fromarray((np.asarray(Image.open(other)) + 1) % 3).save(other)
    changed = run("verify", "--data", str(folder), "--max-drop", "0.05")
    assert f"1 of 200 masks (first: {folder / 'Test' / 'images' / '007.png'}) are others than" in changed[2]
    big = tmp_path / "big.jpg"
    Image.fromarray(np.full((40, 90, 3), (0, 200, 0), np.uint8)).save(big)
    (tmp_path / "out").mkdir()
    code, out, _ = run("predict", str(big), "--out", str(tmp_path / "out"), "--json")
    (row,) = json.loads(out)["predictions"]
    assert (code, row["shares"]) == (0, {"green": 1.0})
    mask = Image.open(row["mask"])
    assert (mask.size, mask.mode, set(np.asarray(mask).reshape(-1).tolist())) == ((90, 40), "P", {1})
    assert Image.open(row["overlay"]).size == (90, 40)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "big.png").write_bytes((folder / "Test" / "images" / "000.png").read_bytes())
    (tmp_path / "new").mkdir()
    both = run("predict", str(big), str(tmp_path / "other" / "big.png"), "--out", str(tmp_path / "new"))
    assert (both[0], "images of different names" in both[2], list((tmp_path / "new").iterdir())) == (2, True, [])
    again = run("predict", str(big), "--out", str(tmp_path / "out"))
    assert (again[0], "big.mask.png: is there already" in again[2]) == (2, True)
    nowhere = run("predict", str(big), "--out", str(tmp_path / "none"))
    assert (nowhere[0], "give a folder that is there" in nowhere[2]) == (2, True)
    assert run("predict", "cat")[2] == "error: cat: no such image file; the package segments images: give their paths\n"


def test_folders_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    assert len(labelled_pairs(folder)) == len(labelled_pairs(folder / "Test")) == 200
    with pytest.raises(InputError, match="none: no such folder"):
        labelled_pairs(tmp_path / "none")
    (folder / "Test" / "masks" / "000.png").unlink()
    with pytest.raises(InputError, match=r"images/000\.png: has no mask of its name \(1 such\); add it or remove it"):
        labelled_pairs(folder)
    (folder / "Test" / "masks").rename(folder / "Test" / "other")
    with pytest.raises(InputError, match=r"masks: no such folder; a split needs images/NAME\.jpg and masks/NAME\.png"):
        labelled_pairs(folder)


def test_a_split_may_lie_inside_its_folders(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind / "test" / "city").mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / kind / "test" / "city" / f"{i}.png")
    assert [image.name for image, _ in labelled_pairs(tmp_path)] == ["0.png", "1.png"]
    (tmp_path / "images" / "val").mkdir()
    with pytest.raises(
        InputError, match=r"masks: has no folder 'validation'; each split needs one in images and masks"
    ):
        labelled_pairs(tmp_path)
    (tmp_path / "images" / "val").rmdir()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "images" / "test" / "city" / "1.bmp")
    with pytest.raises(InputError, match=r"images/test: has 1\.bmp and 1\.png; remove or rename one of them"):
        labelled_pairs(tmp_path)
    for kind in ("images", "masks"):
        (tmp_path / kind / "test").rename(tmp_path / kind / "train")
    with pytest.raises(InputError, match="has a train folder and no test folder"):
        labelled_pairs(tmp_path)


def test_a_mask_is_drawn_in_the_answer_where_that_is_asked_for(helpers: Any) -> None:
    predictor = opened(contents(helpers))
    picture = Image.new("RGB", (12, 8), (0, 200, 0))
    answers: Any = predictor.predict(picture)
    (row,) = TASK.outputs.rows(answers, [""], PredictOptions(top=2, drawn=True))
    drawn = Image.open(io.BytesIO(base64.b64decode(str(row.data["drawn"]))))
    np.testing.assert_array_equal(np.asarray(drawn), answers.masks[0])
    colour = bytes(drawn.getpalette()[3:6])
    assert (row.data["colours"], drawn.info["transparency"]) == ({"green": f"#{colour.hex()}"}, 255)
    assert set(TASK.outputs.rows(answers, [""], PredictOptions())[0].data) == {"shares"}


def test_a_drawn_mask_has_the_shape_of_its_picture_and_is_clear_where_the_frame_cuts() -> None:
    classes = np.ones((4, 4), np.uint8)
    drawn = Image.open(io.BytesIO(draw_mask(classes, Framing(4, 4, 3, resize="crop"), (2000, 4000))))
    assert drawn.size == (1024, 512)
    seen = np.asarray(drawn)
    assert (seen[:, 260:760] == 1).all()
    assert (seen[:, :250] == 255).all()
    own = Image.open(io.BytesIO(draw_mask(classes, Framing(4, 4, 3), None)))
    np.testing.assert_array_equal(np.asarray(own), classes)


def test_a_mask_is_as_large_as_its_image(tmp_path: Path) -> None:
    mask, image = tmp_path / "m.png", tmp_path / "i.jpg"
    Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8)).save(mask)
    Image.new("RGB", (3, 2)).save(image)
    assert load_pair((image, mask), Framing(2, 3, 3), 3, 255).tolist() == [[0, 1, 2], [2, 1, 0]]
    turned = Image.Exif()
    turned[0x0112] = 6  # on its side
    Image.new("RGB", (3, 2)).save(image, exif=turned)
    with pytest.raises(InputError, match=r"m\.png: is 3 x 2 pixels, and its image i\.jpg 2 x 3, upright; they must be"):
        load_pair((image, mask), Framing(2, 3, 3), 3, 255)


def test_one_layout_at_a_time_and_names_in_any_writing(tmp_path: Path) -> None:
    grey = Image.fromarray(np.zeros((2, 2), np.uint8))
    for kind, name in (("images", unicodedata.normalize("NFC", "é")), ("masks", unicodedata.normalize("NFD", "é"))):
        (tmp_path / kind / "test").mkdir(parents=True)
        grey.save(tmp_path / kind / "test" / f"{name}.png")
    assert len(labelled_pairs(tmp_path)) == 1
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match=r"beside images and masks \(train\) and inside of them \(test\); keep one"):
        labelled_pairs(tmp_path)


@pytest.mark.parametrize(
    ("kind", "orientation", "size"),
    [("jpg", 6, (2, 3)), ("jpg", 3, (3, 2)), ("tiff", 6, (2, 3)), ("png", 8, (2, 3)), ("jpg", 9, (3, 2))],
)
def test_sizes_are_those_of_upright_images(tmp_path: Path, kind: str, orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"i.{kind}"
    Image.new("RGB", (3, 2)).save(path, exif=exif)
    assert image_size(path) == (size, True)
    assert load_image(path, Framing(size[1], size[0], 3)).shape == (size[1], size[0], 3)


def test_masks_that_would_be_read_otherwise_than_they_are_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, mask = tmp_path / "m.png", Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    mask.save(path, exif=turned)
    with pytest.raises(InputError, match=r"has an EXIF orientation; .*save it the way up that its image is seen"):
        load_mask(path, Framing(2, 3, 3), 3, 255)
    mask.save(path, save_all=True, append_images=[mask.point(lambda v: v + 1)])
    with pytest.raises(InputError, match=r"holds 2 frames; .*save the one that counts by itself"):
        load_mask(path, Framing(2, 3, 3), 3, 255)
    grey4 = bytes.fromhex("89504e470d0a1a0a") + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in (
            (b"IHDR", struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0)),
            (b"IDAT", zlib.compress(bytes([0, 0x12]))),
            (b"IEND", b""),
        )
    )
    path.write_bytes(grey4)
    with pytest.raises(InputError, match=r"is grey of fewer than 8 bits \(L;4\); .*save it with 8 bits or a palette"):
        load_mask(path, Framing(1, 2, 3), 3, 255)
    mask.save(path)
    mirrored = Image.Exif()
    mirrored[0x0112] = 2
    Image.new("RGB", (3, 2)).save(tmp_path / "i.jpg", exif=mirrored)
    load_pair((tmp_path / "i.jpg", path), Framing(2, 3, 3), 3, 255)
    assert "images are turned by their EXIF orientation; their masks must be drawn on what is seen" in caplog.text
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with pytest.raises(InputError, match=r"m\.png: too large to decode safely"):
        load_mask(path, Framing(2, 3, 3), 3, 255)


def test_masks_as_files(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    indexed = Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8))
    indexed.putpalette(list(range(256)) * 3)
    indexed.save(path)
    assert load_mask(path, Framing(2, 2, 3), 3, 255).tolist() == [[0, 1], [2, 255]]
    (tmp_path / "grey.png").write_bytes(path.read_bytes())
    Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).save(tmp_path / "grey.png")
    assert load_mask(tmp_path / "grey.png", Framing(2, 2, 3), 3, 0).tolist() == [
        [255, 1],
        [2, 1],
    ]  # whatever is ignored reads 255
    assert np.unique(load_mask(path, Framing(8, 6, 3), 3, 255)).tolist() == [0, 1, 2, 255]  # no class between two
    with pytest.raises(InputError, match=r"m\.png: holds the value 2; must be 0 to 1, or 255: ignored"):
        load_mask(path, Framing(2, 2, 3), 2, 255)
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(path)
    with pytest.raises(InputError, match=r"is a PNG of mode RGB; a mask is a PNG with a palette or of 8-bit grey"):
        load_mask(path, Framing(2, 2, 3), 3, 255)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be decoded as a mask"):
        load_mask(path, Framing(2, 2, 3), 3, 255)
    with pytest.raises(InputError, match=r"none\.png: no such file"):
        load_mask(tmp_path / "none.png", Framing(2, 2, 3), 3, 255)


def test_fields_of_the_wrong_kind(helpers: Any) -> None:
    files = assemble(contents(helpers))
    meta = json.loads(files["package.json"])
    for path, value, message in (
        ("ignore_index", 256, "ignore_index is 256; must be 0 to 255"),
        ("labels", [str(i) for i in range(256)], "labels is .*; must be at most 255"),
    ):
        with pytest.raises(PackageError, match=message):
            parse_package({**files, "package.json": to_json({**meta, path: value})}, "x.dlx")
