"""A folder of photos to try things on: views of the two photographs that scikit-learn brings, a class for each.

    python make_photos.py photos

``photos/train/CLASS`` are views of the left of each photograph and ``photos/test/CLASS`` of the right, so that no pixel
is in both. 240 and 160 of each class, 140 to 220 pixels wide, JPEG.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

CLASSES = {"temple": "china.jpg", "flower": "flower.jpg"}
COUNTS = {"train": 240, "test": 160}
SHARE = 0.6  # of the width, for training


def view(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random part of ``photo``, perhaps mirrored, lighter or darker."""
    width = int(rng.integers(140, 221))
    height = int(width * rng.uniform(0.75, 1.0))
    left, top = (int(rng.integers(0, size - part + 1)) for size, part in zip(photo.size, (width, height), strict=True))
    part = photo.crop((left, top, left + width, top + height))
    if rng.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return ImageEnhance.Brightness(part).enhance(float(rng.uniform(0.7, 1.3)))


def main(folder: Path) -> None:
    """Write the photos into ``folder``."""
    pictures = load_sample_images()
    photos = {
        Path(name).name: Image.fromarray(pixels)
        for name, pixels in zip(pictures.filenames, pictures.images, strict=True)
    }
    rng = np.random.default_rng(0)
    for label, name in CLASSES.items():
        width, height = photos[name].size
        cut = int(width * SHARE)
        sides = {"train": (0, 0, cut, height), "test": (cut, 0, width, height)}
        for split, count in COUNTS.items():
            (folder / split / label).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                view(photos[name].crop(sides[split]), rng).save(folder / split / label / f"{number:03}.jpg", quality=90)
    print(f"{folder}: {sum(COUNTS.values()) * len(CLASSES)} photos")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python make_photos.py FOLDER")
    main(Path(sys.argv[1]))
