"""Pictures as users have them: what a camera gives is framed as the training images were."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.runtime.commands.predicting import PredictRequest, predict_asked
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_inputs import ImageInputs
from dlx_deploy.runtime.tasks.images import load_image
from dlx_deploy.runtime.tasks.pictures import picture_sizes, read_pictures
from dlx_deploy.runtime.tasks.semantic_segmentation import semantic_segmentation
from dlx_deploy.runtime.tasks.source import Sample
from dlx_deploy.runtime.tasks.video import read_video

from ..fake_cv2 import fake_opencv  # type: ignore[import-not-found]

RNG = np.random.default_rng(3)
FRAME = RNG.integers(0, 256, (30, 44, 3), np.uint8)
FRAMINGS = {
    "squash": Framing(6, 4, 3),
    "crop": Framing(6, 4, 3, "crop", (9, 8), "bicubic"),
    "letterbox": Framing(6, 4, 3, "letterbox", fill=(1, 2, 3)),
    "bgr": Framing(6, 4, 3, color_order="bgr"),
    "grey": Framing(6, 4, 1),
}


@pytest.fixture(params=list(FRAMINGS))
def framing(request: pytest.FixtureRequest) -> Framing:
    return FRAMINGS[request.param]


@pytest.fixture
def expected(framing: Framing, tmp_path: Path) -> np.ndarray:
    Image.fromarray(FRAME).save(tmp_path / "frame.png")
    return load_image(tmp_path / "frame.png", framing)


def test_whatever_holds_the_picture_it_is_read_as_its_file(
    framing: Framing, expected: np.ndarray, tmp_path: Path
) -> None:
    alpha = np.dstack([FRAME, np.full(FRAME.shape[:2], 7, np.uint8)])
    for given in (
        FRAME,
        FRAME[None],
        [FRAME],
        (FRAME,),
        alpha,
        Image.fromarray(FRAME),
        [Image.fromarray(FRAME)],
        tmp_path / "frame.png",
        np.asfortranarray(FRAME),
        FRAME[::-1][::-1],
    ):
        np.testing.assert_array_equal(read_pictures(given, framing, "rgb"), expected[None])
    for given in (FRAME[..., ::-1], FRAME[None, ..., ::-1], alpha[..., [2, 1, 0, 3]]):
        np.testing.assert_array_equal(read_pictures(given, framing, "bgr"), expected[None])


def test_pictures_of_several_sizes_and_kinds_are_one_batch(
    framing: Framing, expected: np.ndarray, tmp_path: Path
) -> None:
    mixed = [FRAME, Image.fromarray(FRAME), str(tmp_path / "frame.png"), FRAME[:20], FRAME[..., 1]]
    pixels = read_pictures(mixed, framing)
    assert pixels.shape == (5, *framing.shape)
    np.testing.assert_array_equal(pixels[:3], np.stack([expected] * 3))
    assert picture_sizes(mixed, framing) == [(30, 44)] * 3 + [(20, 44), (30, 44)]


def test_an_array_of_the_network_s_size_is_not_framed_again(framing: Framing) -> None:
    exact = RNG.integers(0, 256, framing.shape, np.uint8)
    turned = exact[..., ::-1] if framing.color_order == "bgr" else exact
    for given in (exact, exact[None], [exact], [exact.copy(), exact]):
        assert (read_pictures(given, framing) == exact).all()  # as a data folder or a golden input has it
        assert (read_pictures(given, framing, "rgb") == turned).all()  # as a user has it
        assert (read_pictures(given, framing, "bgr")[..., ::-1] == turned).all() or framing.channels == 1
    assert picture_sizes(exact, framing) == [None]
    assert picture_sizes(np.stack([exact] * 3), framing) == [None] * 3
    assert picture_sizes([exact, np.concatenate([exact, exact])], framing) == [None, (12, 4)]


def test_every_call_of_a_network_that_reads_bgr_takes_red_first(
    make_predictor: Any, helpers: Any, tmp_path: Path
) -> None:
    """The fast path of frames must not show it red where others show it blue."""
    red = np.zeros((6, 4, 3), np.uint8)
    red[..., 0] = 200
    seen: list[np.ndarray] = []

    class Eye:
        def __init__(self, predictor: Predictor) -> None:
            self.inner = predictor._run

        def __call__(self, names: list[str], feeds: dict[str, np.ndarray]) -> Any:
            seen.append(feeds["images"][0, 0, 0].copy())
            return self.inner(names, feeds)

    assert ImageInputs(FRAMINGS["bgr"]).any_value is False
    assert ImageInputs(FRAMINGS["crop"]).any_value is True
    predictor = make_predictor(metadata=helpers.metadata(preprocessing={"resize": "squash", "color_order": "bgr"}))
    predictor._run = Eye(predictor)
    Image.fromarray(red).save(tmp_path / "red.png")
    for given in (red, red[None], [red], Image.fromarray(red), tmp_path / "red.png", red[:5]):
        predictor.predict(given)
    for given in (red[..., ::-1], red[None, ..., ::-1], red[:5, :, ::-1]):
        predictor.predict(given, bgr=True)
    assert [pixel.tolist() for pixel in seen] == [[0, 0, 200]] * 9
    predictor.run(predictor.read(red[..., ::-1]))  # what the network reads: golden inputs, data folders
    assert seen[-1].tolist() == [0, 0, 200]


def test_bgr_is_for_arrays(predictor: Predictor, tmp_path: Path) -> None:
    Image.fromarray(FRAME).save(tmp_path / "a.png")
    for given in (tmp_path / "a.png", [FRAME, Image.fromarray(FRAME)]):
        with pytest.raises(InputError, match=r"image \d is a \w+, and bgr says how arrays are stored; leave it out"):
            predictor.predict(given, bgr=True)


def test_pictures_that_are_too_large_or_too_long(predictor: Predictor, make_predictor: Any, helpers: Any) -> None:
    with pytest.raises(InputError, match=r"image 1: the image has 90000 x 1000 pixels; at most"):
        predictor.predict([FRAME, np.broadcast_to(np.uint8(0), (1000, 90_000, 3))])
    metadata = helpers.metadata(preprocessing={"resize": "crop", "resize_size": [9, 8]})
    cropping = make_predictor(metadata=metadata)
    with pytest.raises(InputError, match=r"image 0: .*would be resized to .* before it is cut"):
        cropping.predict(np.zeros((1, 12_000_000, 3), np.uint8))


def test_frames_of_a_video_are_framed_even_if_their_size_is_the_network_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a folder of the same pictures is: a crop of 6 x 4 px from 9 x 8 enlarges what has 6 x 4."""
    small = RNG.integers(0, 256, (6, 4, 3), np.uint8)
    Image.fromarray(small).save(tmp_path / "small.png")
    (tmp_path / "clip.mp4").write_bytes(b"of a fake OpenCV")
    monkeypatch.setitem(sys.modules, "cv2", fake_opencv([small[..., ::-1]]))
    framing = FRAMINGS["crop"]
    (sample,) = read_video(tmp_path / "clip.mp4")
    found = read_pictures(sample.given, framing)[0]
    np.testing.assert_array_equal(found, load_image(tmp_path / "small.png", framing))
    assert not np.array_equal(found, small)


class Brightest:
    """Stands for a predictor of masks: the class of a pixel is its brightest channel."""

    def __init__(self, framing: Framing) -> None:
        self.task = semantic_segmentation(framing, ["red", "green", "blue"])

    def predict(self, given: object) -> Any:
        images = self.task.inputs.read(given)["images"]
        answers = self.task.outputs.decode({"logits": np.moveaxis(images, 3, 1).astype(np.float32)})
        assert self.task.place is not None
        return self.task.place(answers, given)


HALVES = np.zeros((20, 40, 3), np.uint8)
HALVES[:, :20, 0] = HALVES[:, 20:, 2] = 200  # left red, right blue


def test_masks_are_as_large_as_each_picture_was(tmp_path: Path) -> None:
    sideways = Image.fromarray(np.rot90(HALVES))
    exif = sideways.getexif()
    exif[0x0112] = 6  # is seen turned clockwise: as it was before
    sideways.save(tmp_path / "turned.png", exif=exif)
    found = Brightest(Framing(10, 10, 3)).predict([HALVES, Image.fromarray(HALVES[:5]), tmp_path / "turned.png"])
    assert found.sizes == ((20, 40), (5, 40), (20, 40))
    for mask, size in zip(found.masks, found.sizes, strict=True):
        assert mask.shape == size
        assert (mask[:, :20] == 0).all()
        assert (mask[:, 20:] == 2).all()
    exact = Brightest(Framing(10, 10, 3)).predict(np.zeros((2, 10, 10, 3), np.uint8))
    assert exact.sizes == (None, None)
    assert [mask.shape for mask in exact.masks] == [(10, 10)] * 2


def test_what_the_frame_cut_off_is_no_class_and_its_padding_has_no_share() -> None:
    cropped = Brightest(Framing(10, 10, 3, "crop")).predict(HALVES)
    (mask,) = cropped.masks
    assert mask.shape == (20, 40)
    assert (mask[:, :10] == 255).all()
    assert (mask[:, 10:20] == 0).all()
    assert (mask[:, 20:30] == 2).all()
    assert cropped.shares() == [{"red": 0.5, "blue": 0.5}]
    boxed = Brightest(Framing(10, 10, 3, "letterbox", fill=(0, 99, 0))).predict(HALVES)
    assert (boxed.classes[0, 0] == 1).all()  # the padding
    assert boxed.shares() == [{"red": 0.5, "blue": 0.5}]
    assert set(np.unique(boxed.masks[0])) == {0, 2}


def test_masks_of_a_video_are_written(tmp_path: Path) -> None:
    brightest = Brightest(Framing(10, 10, 3))
    samples = [Sample("clip.mp4", Image.fromarray(HALVES), frame, 0.0) for frame in (0, 7)]
    named = [sample.file_name for sample in samples]
    given = [sample.given for sample in samples]
    from dlx_deploy.runtime.tasks.task import PredictOptions

    options = PredictOptions(1, tmp_path, tuple(given))
    rows = brightest.task.outputs.rows(brightest.predict(given), named, options)
    assert rows[1].data["mask"] == str(tmp_path / "clip-000007.mask.png")
    written = np.asarray(Image.open(tmp_path / "clip-000007.mask.png"))
    assert written.shape == (20, 40)
    assert (written[:, :20] == 0).all()
    assert json.dumps(rows[0].data)


def test_the_command_line_hands_the_frames_on(predictor: Predictor, tmp_path: Path, monkeypatch: Any) -> None:
    asked: list[Any] = []
    rows = type(predictor.package.task.outputs).rows

    def noted(self: Any, answers: Any, named: Any, options: Any) -> Any:
        asked.append(options.given)
        return rows(self, answers, named, options)

    monkeypatch.setattr(type(predictor.package.task.outputs), "rows", noted)
    monkeypatch.setitem(sys.modules, "cv2", fake_opencv([FRAME[..., ::-1]]))
    (tmp_path / "clip.mp4").write_bytes(b"of a fake OpenCV")
    view = predict_asked(predictor, PredictRequest([str(tmp_path / "clip.mp4")]), [])
    assert view.text
    np.testing.assert_array_equal(np.asarray(asked[0][0]), FRAME)
