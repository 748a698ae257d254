"""The built-in scenes."""

from __future__ import annotations

import hashlib

import numpy as np

from dlx_deploy.nn.data.scenes import CLASSES, SIDE, load_scenes


def test_scenes_are_the_same_everywhere() -> None:
    images, masks = load_scenes()
    assert (images.shape, images.dtype, masks.shape, masks.dtype) == (
        (1198, SIDE, SIDE, 3), np.uint8, (1198, SIDE, SIDE), np.uint8,
    )  # fmt: skip
    assert np.unique(masks).tolist() == list(range(len(CLASSES)))
    digest = hashlib.sha256(images.tobytes() + masks.tobytes()).hexdigest()
    assert digest == "3566d8f600f03495c50cd35212f96f159c20872c3ba5f92767719fa4a24e8b07"


def test_each_digit_is_brighter_than_its_ground_and_in_one_scene() -> None:
    images, masks = load_scenes()
    inked = masks > 0
    assert images[inked].mean() > images[~inked].mean() + 60
    strokes = {row[row > 0].tobytes() + np.flatnonzero(row).tobytes() for row in masks.reshape(len(masks), -1)}
    assert len(strokes) == len(masks)
    assert 0.1 < inked.mean() < 0.2
