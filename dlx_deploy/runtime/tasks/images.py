"""Image files as pixels. Training data and deployment both go through ``load_image``, so that they agree."""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BackendMissing, InputError
from ..files import PathLike, open_file, reason
from ..untyped import Foreign
from .folders import SUFFIXES

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SUFFIXES", "load_image"]

MODES = {1: "L", 3: "RGB"}
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded, whatever the suffix says: Pillow would also run Ghostscript on a file that looks like PostScript."""
MAX_PIXELS = 89_478_485
"""Where Pillow begins to warn of a bomb: 358 MB as it holds RGB, from a file that may have some kilobytes."""
DECODING = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    AttributeError,
    NotImplementedError,
    MemoryError,
)
"""What Pillow's decoders raise at files that are damaged or made to fail."""


def load_image(path: PathLike, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """The image at ``path`` as uint8[height, width, channels], 0..255: grey (1) or RGB (3), a new array.

    In this order: turned upright by its EXIF orientation, an alpha channel dropped, 16-bit grey cut to its high byte,
    and resized with Pillow's bilinear filter, whose support grows when it shrinks an image (antialiasing).

    Raises:
        InputError: no such file, not an image, cut short, several images in one, or too large to decode safely.
        BackendMissing: Pillow is not here.
    """
    if channels not in MODES:
        raise InputError(f"channels is {channels}; must be 1 (grey) or 3 (RGB)")
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as e:
        raise BackendMissing(f"Pillow cannot be imported ({e}); install it with: pip install pillow") from e
    bilinear = getattr(Image, "Resampling", Image).BILINEAR  # Pillow before 9.1 has no Resampling
    try:
        with open_file(path) as file, Image.open(file) as image:  # looks at the header only
            if image.format not in FORMATS:
                raise InputError(
                    f"{os.fspath(path)}: cannot be decoded as an image (it is {image.format}); give a PNG or JPEG"
                )
            if image.size[0] * image.size[1] > MAX_PIXELS:
                raise InputError(
                    f"{os.fspath(path)}: has {image.size[0]} x {image.size[1]} pixels; at most {MAX_PIXELS}"
                )
            _refuse_frames(image, os.fspath(path))
            upright: Foreign = ImageOps.exif_transpose(image)
            pixels = _eight_bits(Image, upright, os.fspath(path)).convert(MODES[channels])
            if pixels.size != (width, height):
                pixels = pixels.resize((width, height), bilinear)
    except (FileNotFoundError, IsADirectoryError) as e:
        raise InputError(f"{os.fspath(path)}: no such image file") from e
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise InputError(f"{os.fspath(path)}: too large to decode safely: {e}") from e
    except DECODING as e:
        # Pillow's own words for this one are those of a Python object.
        why = "no format that is read" if isinstance(e, UnidentifiedImageError) else reason(e)
        raise InputError(f"{os.fspath(path)}: cannot be decoded as an image ({why}); replace or remove it") from e
    return np.array(pixels, np.uint8).reshape(height, width, channels)


def _refuse_frames(image: Foreign, path: str) -> None:
    """Reading the first of several would leave the others out quietly. An MPO's others are previews of the first."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise InputError(f"{path}: holds {frames} frames or pages, and one is read; save the one that counts by itself")


def _eight_bits(module: Foreign, image: Foreign, path: str) -> Foreign:
    """``image``, its samples in 0..255: converting a deeper mode would clip or scale by Pillow's version."""
    if image.mode == "F":
        raise InputError(f"{path}: has floating-point samples; save it with 8 or 16 bits per sample")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return module.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image
