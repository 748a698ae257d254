"""Scenes made of scikit-learn's digits: one or two of them on textured ground, and a mask that says which is where.

Nothing is downloaded, and the same bytes come out everywhere: everything is drawn as integers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dlx_deploy.nn.data import digits
from dlx_deploy.nn.data.dataset import Images

__all__ = ["CLASSES", "SIDE", "load_scenes"]

CLASSES = ("ground", *digits.CLASSES)
SIDE = 32
_SCALE = 2
_SPOT = digits.SIDE * _SCALE
"""The side of a digit."""
_STROKE = 96
"""Of a scan's pixels, 0..255, those under it are ground."""
_PATCH = 4
"""The side of a patch of ground."""


def load_scenes() -> tuple[Images, npt.NDArray[np.uint8]]:
    """Scenes uint8[1198, 32, 32, 3], NHWC, 0..255, and masks uint8[1198, 32, 32]: 0 is ground, digit + 1 its strokes.

    Each scan is in one scene, twice as large, so that no scene shows a digit of another; every second one shows two.

    Raises:
        EnvironmentMissing: scikit-learn is not installed.
    """
    scans, labels = digits.load_digits(1)
    rng = np.random.default_rng(0)
    digit_counts = np.resize([1, 2], len(scans) * 2 // 3)
    images = np.stack([_ground(rng) for _ in digit_counts])
    masks = np.zeros(images.shape[:3], np.uint8)
    chosen = np.split(rng.permutation(len(scans)), np.cumsum(digit_counts)[:-1])
    for image, mask, rows in zip(images, masks, chosen, strict=True):
        for row, (y, x) in zip(rows, _places(len(rows), rng), strict=True):
            spot = (slice(y, y + _SPOT), slice(x, x + _SPOT))
            scan = scans[row, :, :, 0].repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
            _paint(image[spot], scan, rng)
            mask[spot][scan >= _STROKE] = labels[row] + 1
    return images, masks


def _ground(rng: np.random.Generator) -> Images:
    """Coloured patches under fine noise, uint8[32, 32, 3]: no darker than 20, no brighter than 149."""
    patches = rng.integers(30, 120, 3) + rng.integers(-10, 11, (SIDE // _PATCH, SIDE // _PATCH, 3))
    noise = rng.integers(0, 20, (SIDE, SIDE, 3))
    ground = patches.repeat(_PATCH, axis=0).repeat(_PATCH, axis=1) + noise
    return ground.astype(np.uint8)


def _places(count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Row and column of the upper left corner of each digit: they do not touch."""
    free = SIDE - _SPOT
    if count == 1:
        return [(int(rng.integers(free + 1)), int(rng.integers(free + 1)))]
    return [(int(rng.integers(free + 1)), column) for column in (0, free)]


def _paint(spot: npt.NDArray[np.uint8], scan: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Lay ink of one colour over ``spot`` [16, 16, 3], as dense as ``scan`` [16, 16] is bright."""
    ink, density = rng.integers(150, 256, 3), scan[:, :, None].astype(np.int64)
    spot[:] = ((spot * (255 - density) + ink * density) // 255).astype(np.uint8)
