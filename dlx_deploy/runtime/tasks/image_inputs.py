"""Image files and arrays as what a network reads: uint8[N, H, W, C]."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Dict, Optional, Sequence, Tuple

import numpy as np

from ..errors import InputError
from ..files import PathLike
from ..untyped import Array
from ..words import said
from .arrays import Arrays, Tensor, digests_of, only_array
from .framing import BILINEAR, RGB, RULES, SQUASH, Framing
from .image_sources import open_images, refuse_missing
from .images import load_image
from .source import Source
from .video import read_camera

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..package.fields import Fields

__all__ = ["IMAGES", "ImageInputs", "read_framing"]

IMAGES = "images"
MAX_SIDE = 65_536  # px


@dataclass(frozen=True)
class ImageInputs:
    """Images uint8[N, H, W, C], NHWC, 0..255, as ``framing`` makes them. ``verb``: what the package does to them."""

    framing: Framing
    verb: str = "classifies"
    noun: str = IMAGES
    any_value: bool = True
    samples: Sequence[object] = ()

    @property
    def shape(self) -> Tuple[int, int, int]:
        """(H, W, C) of one image."""
        return self.framing.shape

    @property
    def tensors(self) -> Tuple[Tensor, ...]:
        """The one input."""
        return (Tensor(IMAGES, "uint8", self.shape, "NHWC"),)

    def fields(self) -> Dict[str, object]:
        """Nothing that the input's shape does not say."""
        return {}

    def members(self) -> Dict[str, bytes]:
        """Nothing: the golden images are the golden inputs."""
        return {}

    def describe(self, batch: Optional[int]) -> str:
        """The input, for people."""
        return f"uint8[{', '.join(str(n) for n in (batch or 'N', *self.shape))}], NHWC, 0..255"

    def read(self, given: object) -> Dict[str, Array]:
        """``given`` as uint8[N, H, W, C]: files are read, a single image gets its batch axis.

        Raises:
            InputError: another dtype or shape, no images, or a file that is missing or cannot be decoded.
            BackendMissing: files were given and Pillow is not here.
        """
        images = only_array(given, IMAGES)
        if isinstance(images, (str, os.PathLike)):
            images = [images]
        if isinstance(images, (list, tuple)) and any(isinstance(one, (str, os.PathLike)) for one in images):
            paths = [_path(i, one) for i, one in enumerate(images)]
            return {IMAGES: np.stack([load_image(path, self.framing) for path in paths])}
        array = _array(images)
        if array.shape == self.shape:
            array = array[np.newaxis]
        height, width, channels = self.shape
        rule = f"must be uint8[N, {height}, {width}, {channels}], NHWC, 0..255, N at least 1"
        if array.dtype != np.uint8:
            raise InputError(f"images are {array.dtype}{list(array.shape)}; {rule}{_dtype_hint(array)}")
        if array.shape[1:] != self.shape or not len(array):
            raise InputError(f"images are uint8{list(array.shape)}; {rule}{_layout_hint(array.shape, self.shape)}")
        return {IMAGES: np.ascontiguousarray(array)}

    def trim(self, feeds: Arrays) -> Arrays:
        """``feeds``: images have no padding."""
        return feeds

    def digests(self, feeds: Arrays) -> NDArray[np.uint64]:
        """Of each image the digest of its pixels, row by row, channel last."""
        return digests_of(feeds[IMAGES])

    def fault(self, feeds: Arrays) -> Optional[Tuple[str, str]]:
        """``None``: every value is a pixel."""
        return None

    def sample_fault(self, golden: Arrays) -> Optional[str]:
        """``None``: the golden images are the golden inputs."""
        return None

    def check_argument(self, argument: str) -> None:
        """Refuses what is no file or folder here.

        Raises:
            InputError: says so.
        """
        refuse_missing(argument, self.verb)

    def open_source(self, argument: str, every: int = 1) -> Source:
        """The images that a word of the command line names: a file, a folder of them, a video's frames.

        Raises:
            InputError: as ``open_images``.
        """
        return open_images(argument, every)

    def open_camera(self, camera: str, every: int = 1) -> Source:
        """The frames of a camera, without an end.

        Raises:
            InputError, BackendMissing: as ``read_camera``, when the first is asked for.
        """
        return Source(read_camera(camera, every), live=True)


def read_framing(field: Fields) -> Framing:
    """How a picture becomes the input, as ``package.json`` has it.

    ``preprocessing.resize`` is "bilinear" where images are squashed so and no more: older readers know nothing else
    and refuse every other value.

    Raises:
        PackageError: the input has another shape, or images are resized by a rule that is not applied here.
    """
    tensor = field.tensor("inputs.0")
    if len(tensor.dims) != 3 or None in tensor.sizes:
        rule = 'must be ["batch" or a size, height, width, channels]'
        raise field.wrong("inputs.0.shape", field.at("inputs.0.shape"), rule)
    height, width, channels = (int(n) for n in tensor.dims)
    rule = field.get("preprocessing.resize", str) if field.has("preprocessing.resize") else BILINEAR
    if rule != BILINEAR and rule not in RULES:
        raise field.wrong(
            "preprocessing.resize", rule, f"must be one of {', '.join((BILINEAR, *RULES))}: no other is applied"
        )
    try:
        framing = Framing(
            height,
            width,
            channels,
            resize=SQUASH if rule == BILINEAR else rule,
            box=_numbers(field, "preprocessing.resize_size", ()),
            interpolation=_word(field, "preprocessing.interpolation", BILINEAR),
            fill=_numbers(field, "preprocessing.fill", (0,)),
            color_order=_word(field, "preprocessing.color_order", RGB),
        )
    except InputError as e:
        raise field.wrong("preprocessing", field.at("preprocessing"), str(e)) from e
    if rule == BILINEAR and not framing.plain:
        raise field.wrong("preprocessing.resize", rule, "must be another where the other fields say more than that")
    return framing


def _word(field: Fields, path: str, default: str) -> str:
    return field.get(path, str) if field.has(path) else default


def _numbers(field: Fields, path: str, default: Tuple[int, ...]) -> Tuple[int, ...]:
    values = field.get(path, list) if field.has(path) else list(default)
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= MAX_SIDE for n in values):
        raise field.wrong(path, values, f"must be whole numbers, 0 to {MAX_SIDE}")
    return tuple(values)


def _path(number: int, one: object) -> PathLike:
    if not isinstance(one, (str, os.PathLike)):
        raise InputError(f"image {number} is a {type(one).__name__} among paths; give all as paths, or all as arrays")
    return one


def _array(images: object) -> Array:
    """``images`` as an array; of rows of several lengths older numpys make one of objects, which is refused later."""
    try:
        return np.asarray(images)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as e:
        raise InputError(
            f"images cannot be made one array ({said(e)}); must be of one shape and dtype, or paths"
        ) from e


def _dtype_hint(array: Array) -> str:
    if array.dtype.kind == "f":
        return "; give the pixels as they are, normalisation is in the graph: images.astype(numpy.uint8) of 0..255"
    return "; for instance images.astype(numpy.uint8)"


def _layout_hint(shape: Sequence[int], image: Tuple[int, int, int]) -> str:
    if tuple(shape[-3:]) == (image[2], image[0], image[1]):
        return "; these look like NCHW: numpy.moveaxis(images, -3, -1)"
    return "; resize them, or give paths of image files"
