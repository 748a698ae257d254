"""Image files as pixels. Training data and deployment both go through ``load_image``, so that they agree."""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from .errors import BackendMissing, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SUFFIXES", "load_image"]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB"}


def load_image(path: Union[str, os.PathLike[str]], height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """The image at ``path`` as uint8[height, width, channels], 0..255: grey (1) or RGB (3), a new array.

    In this order: turned upright by its EXIF orientation, an alpha channel dropped, 16-bit grey cut to its high byte,
    and resized with Pillow's bilinear filter, whose support grows when it shrinks an image (antialiasing).

    Raises:
        InputError: no such file, not an image, cut short, or too large to decode safely.
        BackendMissing: Pillow is not here.
    """
    if channels not in MODES:
        raise InputError(f"channels is {channels}; must be 1 (grey) or 3 (RGB)")
    try:
        from PIL import Image, ImageOps
    except ImportError as e:
        raise BackendMissing(f"Pillow cannot be imported ({e}); install it with: pip install pillow") from e
    bilinear = getattr(Image, "Resampling", Image).BILINEAR  # Pillow before 9.1 has no Resampling
    try:
        with Image.open(path) as image:
            upright: Any = ImageOps.exif_transpose(image)
            pixels = _eight_bits(Image, upright, os.fspath(path)).convert(MODES[channels])
            if pixels.size != (width, height):
                pixels = pixels.resize((width, height), bilinear)
    except (FileNotFoundError, IsADirectoryError) as e:
        raise InputError(f"{os.fspath(path)}: no such image file") from e
    except Image.DecompressionBombError as e:
        raise InputError(f"{os.fspath(path)}: too large to decode safely: {e}") from e
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error) as e:
        raise InputError(f"{os.fspath(path)}: cannot be decoded as an image ({e}); replace or remove it") from e
    return np.array(pixels, np.uint8).reshape(height, width, channels)


def _eight_bits(module: Any, image: Any, path: str) -> Any:
    """``image``, its samples in 0..255: converting a deeper mode would clip or scale by Pillow's version."""
    if image.mode == "F":
        raise InputError(f"{path}: has floating-point samples; save it with 8 or 16 bits per sample")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return module.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image
