"""What the tasks say of samples for a drift watch, held against plain formulas over every pixel."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.tasks.classes import Classes
from dlx_deploy.runtime.tasks.features import GRID, features_of, grid_steps, input_features
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_inputs import ImageInputs
from dlx_deploy.runtime.tasks.semantic_segmentation import semantic_segmentation
from dlx_deploy.runtime.tasks.text_inputs import TextInputs, Tokens
from dlx_deploy.runtime.tasks.texts import unknown_token

RNG = np.random.default_rng(0)


def test_of_small_images_every_pixel_counts() -> None:
    images = RNG.integers(0, 256, (5, 7, 6, 3), dtype=np.uint8)
    told = ImageInputs(Framing(7, 6, 3)).features({"images": images})
    exact = images.astype(np.float64)
    brightness = exact.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(told["brightness"], brightness, rtol=1e-5)
    np.testing.assert_allclose(told["contrast"], exact.reshape(5, -1).std(axis=1), rtol=1e-5)
    np.testing.assert_allclose(told["detail"], np.abs(np.diff(exact, axis=2)).mean(axis=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(told["tint_2"], exact[..., 2].mean(axis=(1, 2)) - brightness, rtol=1e-3)
    assert all(values.dtype == np.float32 for values in told.values())


def test_spectral_images_have_as_many_tints_as_a_package_may_hold() -> None:
    images = np.zeros((1, 4, 4, 300), np.uint8)
    assert len(ImageInputs(Framing(4, 4, 300)).features({"images": images})) == 3 + 8


def test_grey_images_have_no_tint_and_a_column_has_no_neighbours() -> None:
    images = np.zeros((2, 5, 1, 1), np.uint8)
    assert set(ImageInputs(Framing(5, 1, 1)).features({"images": images})) == {"brightness", "contrast"}


@pytest.mark.parametrize("size", [1, 31, 32, 33, 64, 65, 4000])
def test_of_large_images_a_grid_is_looked_at(size: int) -> None:
    step, _ = grid_steps(size, 1)
    assert 1 <= len(range(0, size, step)) <= GRID


def test_of_a_large_image_the_grid_is_near_all_pixels() -> None:
    wave = 128 + 100 * np.sin(np.arange(300)[:, None] / 40) * np.cos(np.arange(200) / 30)
    image = wave.astype(np.uint8)[None, :, :, None]
    told = ImageInputs(Framing(300, 200, 1)).features({"images": image})
    assert told["brightness"][0] == pytest.approx(image.mean(), abs=3)
    assert told["contrast"][0] == pytest.approx(image.std(), abs=3)


def test_of_classes_the_confidence_and_the_answer() -> None:
    logits = np.array([[0, 0, 0, 0], [1000, 0, 0, 0], [0, 2, 1, 0]], np.float32)
    told = Classes(("a", "b", "c", "d")).features({"logits": logits})
    expected = np.exp(2) / (np.exp(2) + np.exp(1) + 2)
    np.testing.assert_allclose(told["confidence"], [0.25, 1, expected], rtol=1e-6)
    assert told["class"].tolist() == [0, 0, 1]
    assert told["class"].dtype.kind == "i"


def test_of_masks_the_mean_confidence_and_the_shares() -> None:
    task = semantic_segmentation(Framing(4, 4, 1), ["road", "sky"])
    logits = np.zeros((2, 2, 4, 4), np.float32)
    logits[0, 1, :1] = 50  # a quarter is sky for sure, the rest could be either
    logits[1, 1] = 50
    told = features_of(task, {"images": np.zeros((2, 4, 4, 1), np.uint8)}, {"logits": logits})
    np.testing.assert_allclose(told["output_share_1"], [0.25, 1])
    np.testing.assert_allclose(told["output_share_0"], [0.75, 0])
    np.testing.assert_allclose(told["output_confidence"], [0.25 + 0.75 / 2, 1], rtol=1e-6)


def tokenizer(**model: Any) -> bytes:
    return json.dumps({"model": model}).encode()


def test_of_texts_the_length_the_words_and_the_unknown_ones_without_padding() -> None:
    tokens = np.array([[5, 1, 1, 9], [7, 0, 0, 0]], np.int32)
    inputs = TextInputs(Tokens(10, 0, 4, True), tokenizer(unk_token="?", vocab={"?": 1}))
    told = inputs.features({"tokens": tokens})
    assert told["length"].tolist() == [4, 1]
    assert told["token_mean"].tolist() == [4, 7]
    assert told["unknown"].tolist() == [0.5, 0]
    assert "unknown" not in TextInputs(Tokens(10, 1, 4, True), inputs.tokenizer).features({"tokens": tokens})


@pytest.mark.parametrize(
    ("data", "token"),
    [
        (tokenizer(unk_token="[UNK]", vocab={"[UNK]": 100}), 100),
        (tokenizer(unk_id=3, vocab=[["<unk>", 0.0]]), 3),
        (tokenizer(unk_token=None, vocab={"a": 0}), None),
        (tokenizer(unk_token="x", vocab={"x": True}), None),
        (b"[]", None),
        (b"no", None),
    ],
)
def test_the_unknown_token_by_the_kinds_of_tokenizers(data: bytes, token: int | None) -> None:
    assert unknown_token(data) == token


def test_a_part_that_says_nothing_has_no_features_and_another_shape_is_refused() -> None:
    class Silent:
        pass

    class Wrong:
        def features(self, arrays: Any) -> Any:
            return {"x": np.zeros(7)}

    feeds = {"images": np.zeros((2, 4, 4, 1), np.uint8)}
    silent: Any = Silent()
    wrong: Any = Wrong()
    assert input_features(silent, feeds) == {}
    with pytest.raises(ValueError, match=r"feature 'x' is \[7\] for 2 samples; must be \[2\]"):
        input_features(wrong, feeds)
