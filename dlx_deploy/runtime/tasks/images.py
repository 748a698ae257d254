"""Pictures as pixels, from files and from memory. Training data and deployment both go through these functions."""

from __future__ import annotations

import os
import struct
import zlib
from importlib import import_module
from typing import TYPE_CHECKING, BinaryIO, Optional

import numpy as np

from ..errors import InputError
from ..files import PathLike, open_file, reason
from ..untyped import Array, Foreign
from .framing import BGR, COLOR_ORDERS, MAX_PIXELS, RGB, Framing, Placement, framed, pillow, place

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fit_image", "load_image", "open_picture"]

MODES = {1: "L", 3: "RGB"}
_PICTURE = "must be Pillow's, or uint8[h, w], [h, w, 1], [h, w, 3] or [h, w, 4] with h and w at least 1"
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded, whatever the suffix says: Pillow would also run Ghostscript on a file that looks like PostScript."""
DECODERS = {
    b"\x89PNG\r\n\x1a\n": ("PIL.PngImagePlugin", "PngImageFile"),
    b"\xff\xd8\xff": ("PIL.JpegImagePlugin", "jpeg_factory"),
}
"""What a file begins with → the module of its decoder and what opens it: what Pillow comes to in the end."""
ORIENTATION = 0x0112  # of EXIF's tags
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


def load_image(path: PathLike, framing: Framing, data: Optional[BinaryIO] = None) -> NDArray[np.uint8]:
    """The image at ``path`` as uint8[H, W, C], 0..255, as ``framing`` says: a new array.

    ``data``: its bytes, where it is no file of its own and ``path`` is only what it is called.

    Raises:
        InputError: no such file, not an image, cut short, several images in one, or too large to decode safely.
        BackendMissing: Pillow is not here.
    """
    try:
        return _pixels(open_picture(path, framing.channels, data), framing)
    except InputError as e:
        raise e if str(e).startswith(os.fspath(path)) else InputError(f"{os.fspath(path)}: {e}") from e


def open_picture(path: PathLike, channels: int, data: Optional[BinaryIO] = None) -> Foreign:
    """The image at ``path`` as Pillow's, of its own size: grey (1) or RGB (3); ``data`` as of ``load_image``.

    In this order: turned upright by its EXIF orientation, 16-bit grey cut to its high byte, an alpha channel dropped.

    Raises:
        InputError, BackendMissing: as ``load_image``.
    """
    _refuse_other_channels(channels)
    module, name = pillow(), os.fspath(path)
    from PIL import UnidentifiedImageError

    try:
        with data or open_file(path) as file, _opened(module, file) as image:  # looks at the header only
            if image.format not in FORMATS:
                raise InputError(f"{name}: cannot be decoded as an image (it is {image.format}); give a PNG or JPEG")
            if image.size[0] * image.size[1] > MAX_PIXELS:
                raise InputError(f"{name}: has {image.size[0]} x {image.size[1]} pixels; at most {MAX_PIXELS}")
            _refuse_frames(image, name)
            return _upright(image, channels, name)
    except (FileNotFoundError, IsADirectoryError) as e:
        raise InputError(f"{name}: no such image file") from e
    except (module.DecompressionBombError, module.DecompressionBombWarning) as e:
        raise InputError(f"{name}: too large to decode safely: {e}") from e
    except DECODING as e:
        # Pillow's own words for this one are those of a Python object.
        why = "no format that is read" if isinstance(e, UnidentifiedImageError) else reason(e)
        raise InputError(f"{name}: cannot be decoded as an image ({why}); replace or remove it") from e


def _opened(module: Foreign, file: BinaryIO) -> Foreign:
    """The image in ``file`` as ``module.open`` gives it, which imports five formats before it looks at the first byte.

    A PNG or JPEG needs one of them, and a start should not wait for the others.
    """
    head, check = file.read(8), getattr(module, "_decompression_bomb_check", None)
    file.seek(0)
    found = next((place for magic, place in DECODERS.items() if head.startswith(magic)), None)
    if found is None or check is None:
        return module.open(file)
    try:
        image = getattr(import_module(found[0]), found[1])(file, "")
    except (SyntaxError, IndexError, TypeError, struct.error):  # another format after all, or none: Pillow's to say
        file.seek(0)
        return module.open(file)
    check(image.size)
    return image


def fit_image(picture: Foreign, framing: Framing, color_order: str = RGB) -> NDArray[np.uint8]:
    """A ``picture`` in memory as ``load_image`` would give it from a file: uint8[H, W, C], 0..255, a new array.

    ``picture``: Pillow's image, or pixels uint8[h, w], [h, w, 1], [h, w, 3] or [h, w, 4] of any size, whose colours
    are in ``color_order`` (OpenCV's are "bgr"); a fourth channel is alpha and dropped.

    Raises:
        InputError: something else, or a picture that cannot be framed. BackendMissing: Pillow is not here.
    """
    if color_order not in COLOR_ORDERS:
        raise InputError(f"color_order is {color_order!r}; must be one of {', '.join(COLOR_ORDERS)}")
    _refuse_other_channels(framing.channels)
    if not isinstance(picture, np.ndarray):
        module = pillow()
        if not isinstance(picture, module.Image):
            raise InputError(f"the image is a {type(picture).__name__}; {_PICTURE}")
        try:
            return _pixels(_upright(picture, framing.channels, "the image"), framing)
        except DECODING as e:
            raise InputError(f"the image cannot be decoded ({reason(e)}); replace it") from e
    pixels = _colours(picture)
    if color_order == BGR and framing.channels == 1:
        pixels = pixels[..., ::-1]  # else what is left of them is turned: it is far less
    whole = Placement(framing.width, framing.height, 0, 0)
    if pixels.shape == framing.shape and place(framing, framing.width, framing.height) == whole:
        return _ordered(np.array(pixels), framing, color_order)  # nothing is left for Pillow to do
    image = pillow().fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    return _pixels(image.convert(MODES[framing.channels]), framing, color_order)


def _pixels(image: Foreign, framing: Framing, color_order: str = RGB) -> NDArray[np.uint8]:
    """Pillow's ``image``, grey or colour as the framing's channels say, in its frame; ``color_order``: the image's."""
    fill = framing.fill[::-1] if color_order == BGR else framing.fill
    inside = framed(image, framing, framing.interpolation, fill)
    return _ordered(np.array(inside, np.uint8).reshape(framing.shape), framing, color_order)


def _ordered(pixels: NDArray[np.uint8], framing: Framing, color_order: str) -> NDArray[np.uint8]:
    """``pixels``, whose colours come in ``color_order``, in the order in which the network reads them."""
    return pixels if framing.color_order == color_order else np.ascontiguousarray(pixels[..., ::-1])


def _colours(pixels: Array) -> NDArray[np.uint8]:
    """``pixels`` as uint8[h, w, 1 or 3], without alpha."""
    shape = (*pixels.shape, 1) if pixels.ndim == 2 else pixels.shape
    if pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3, 4) or 0 in shape:
        raise InputError(f"the image is {pixels.dtype}{list(pixels.shape)}; {_PICTURE}")
    if shape[0] * shape[1] > MAX_PIXELS:
        raise InputError(f"the image has {shape[1]} x {shape[0]} pixels; at most {MAX_PIXELS}")
    colours: NDArray[np.uint8] = pixels.reshape(shape)[..., :3]
    return colours


def _upright(image: Foreign, channels: int, name: str) -> Foreign:
    """Pillow's ``image`` the way up that it is seen, of 8 bits, grey or RGB; decoded: its file may be closed."""
    if image.getexif().get(ORIENTATION, 1) != 1:
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
    return _eight_bits(pillow(), image, name).convert(MODES[channels])


def _refuse_other_channels(channels: int) -> None:
    if channels not in MODES:
        raise InputError(f"channels is {channels}; must be 1 (grey) or 3 (RGB)")


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
