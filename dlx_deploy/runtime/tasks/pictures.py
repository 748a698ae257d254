"""Pictures in memory, as a user has them (a camera's arrays, Pillow's images, files), as what a network reads."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple, Union

import numpy as np

from ..errors import InputError
from ..untyped import Array, Foreign
from ..words import said
from .framing import BGR, RGB, Framing
from .images import ORIENTATION, fit_image, load_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["picture_sizes", "read_pictures"]

CHANNELS = (1, 3, 4)  # of an array that is a picture; the fourth is alpha, and dropped
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange height and width


def read_pictures(given: object, framing: Framing, color_order: Optional[str] = None) -> NDArray[np.uint8]:
    """``given`` as uint8[N, H, W, C]: a picture or several, each of any size.

    An array of exactly the size that the network reads is not framed again, and may be a batch; any other is framed as
    the training images were. ``color_order``: of arrays, "bgr" for OpenCV's; ``None``: those of the network's own size
    have its order already, and others are RGB.

    Raises:
        InputError: another dtype or shape, no pictures, or one that is missing or cannot be decoded; "bgr" with what is
            no array. BackendMissing: Pillow is needed and not here.
    """
    pictures = _pictures(given, framing)
    if isinstance(pictures, list):
        return np.stack([_framed(i, one, framing, color_order) for i, one in enumerate(pictures)])
    return _ordered(pictures, framing, color_order)


def picture_sizes(given: object, framing: Framing) -> List[Optional[Tuple[int, int]]]:
    """The own size (height, width) of each picture in ``given``, which ``read_pictures`` has taken.

    ``None`` where it is what the network reads already: which picture it was cut from is not known.

    Raises:
        InputError, BackendMissing: as ``image_size``.
    """
    pictures = _pictures(given, framing)
    return [_size(one, framing) for one in pictures] if isinstance(pictures, list) else [None] * len(pictures)


def _pictures(given: Foreign, framing: Framing) -> Union[Array, List[object]]:
    """``given`` one by one, or as an array uint8[N, H, W, C] that needs no framing."""
    if _is_file(given) or _is_pillow(given):
        return [given]
    if isinstance(given, (list, tuple)) and any(_is_file(one) or _is_pillow(one) for one in given):
        _refuse_others(given)
        return list(given)
    if _are_arrays(given) and any(one.shape != framing.shape for one in given):
        return list(given)
    array = _array(given)
    if array.dtype == np.uint8 and array.shape == framing.shape:
        return array[np.newaxis]
    if array.dtype == np.uint8 and array.shape[1:] == framing.shape and len(array):
        return array
    if array.dtype == np.uint8 and _is_picture(array.shape[1:], framing, 3) and len(array):
        return list(array)  # of a batch
    return [array]


def _framed(number: int, picture: Foreign, framing: Framing, color_order: Optional[str]) -> NDArray[np.uint8]:
    if not isinstance(picture, np.ndarray):
        if color_order == BGR:
            rule = "bgr says how arrays are stored; leave it out, an image file or Pillow's image knows its colours"
            raise InputError(f"image {number} is a {type(picture).__name__}, and {rule}")
        return load_image(picture, framing) if _is_file(picture) else _fitted(number, picture, framing, RGB)
    if picture.dtype != np.uint8 or not _is_picture(picture.shape, framing):
        raise InputError(_refusal(picture, framing))
    if picture.shape == framing.shape:
        return _ordered(picture, framing, color_order)
    return _fitted(number, picture, framing, color_order or RGB)


def _fitted(number: int, picture: Foreign, framing: Framing, color_order: str) -> NDArray[np.uint8]:
    try:
        return fit_image(picture, framing, color_order)
    except InputError as e:
        raise InputError(f"image {number}: {e}") from e


def _ordered(pixels: Array, framing: Framing, color_order: Optional[str]) -> NDArray[np.uint8]:
    """``pixels`` [..., C], whose colours come in ``color_order``, in the order in which the network reads them."""
    turned = color_order not in (None, framing.color_order) and framing.channels == 3
    return np.ascontiguousarray(pixels[..., ::-1] if turned else pixels)


def _size(picture: Foreign, framing: Framing) -> Optional[Tuple[int, int]]:
    if isinstance(picture, np.ndarray):
        height, width = picture.shape[:2]
        return None if picture.shape == framing.shape else (int(height), int(width))
    if _is_file(picture):
        from .mask_files import image_size

        (width, height), _ = image_size(picture)
    else:
        width, height = _upright_size(picture)
    return height, width


def _upright_size(picture: Foreign) -> Tuple[int, int]:
    """Width and height of Pillow's ``picture`` as it is seen: its EXIF orientation may turn it."""
    width, height = picture.size
    return (height, width) if picture.getexif().get(ORIENTATION) in SIDEWAYS else (width, height)


def _is_file(one: object) -> bool:
    return isinstance(one, (str, os.PathLike))


def _is_pillow(one: object) -> bool:
    """Whether it is an image of Pillow, which need not be imported to see that it is none."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(one, module.Image)


def _are_arrays(given: object) -> bool:
    return isinstance(given, (list, tuple)) and all(isinstance(one, np.ndarray) for one in given)


def _is_picture(shape: Sequence[int], framing: Framing, least: int = 2) -> bool:
    """Whether an array of ``shape`` is one picture [h, w] or [h, w, channels], of at least ``least`` dimensions."""
    height, width, channels = framing.shape
    if not least <= len(shape) <= 3 or 0 in shape or tuple(shape) == (channels, height, width) != framing.shape:
        return False
    return len(shape) == 2 or shape[2] in CHANNELS


def _refuse_others(given: Sequence[object]) -> None:
    for i, one in enumerate(given):
        if not (_is_file(one) or _is_pillow(one) or isinstance(one, np.ndarray)):
            rule = "must be a path, Pillow's image, or a numpy array of pixels"
            raise InputError(f"image {i} is a {type(one).__name__} among pictures; {rule}")


def _array(images: object) -> Array:
    """``images`` as an array; of rows of several lengths older numpys make one of objects, which is refused later."""
    try:
        return np.asarray(images)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as e:
        raise InputError(
            f"images cannot be made one array ({said(e)}); must be of one shape and dtype, or paths"
        ) from e


def _refusal(array: Array, framing: Framing) -> str:
    """Why ``array`` is no picture, and what to do."""
    height, width, channels = framing.shape
    what = f"images are {array.dtype}{list(array.shape)}"
    rule = f"must be uint8[N, {height}, {width}, {channels}], NHWC, 0..255, N at least 1, or pictures of other sizes"
    if array.dtype.kind == "f":
        remedy = "give the pixels as they are, normalisation is in the graph: images.astype(numpy.uint8) of 0..255"
    elif array.dtype != np.uint8:
        remedy = "for instance images.astype(numpy.uint8)"
    elif array.ndim >= 3 and array.shape[-3] in (1, 3) and array.shape[-1] not in CHANNELS[:2]:
        remedy = "these look like NCHW: numpy.moveaxis(images, -3, -1)"
    else:
        remedy = "give a picture as uint8[h, w, 3] or [h, w], several as a list of them, or paths of image files"
    return f"{what}; {rule}; {remedy}"
