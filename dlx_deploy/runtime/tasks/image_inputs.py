"""Image files and arrays as what a network reads: uint8[N, H, W, C]."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Dict, Optional, Sequence, Tuple

import numpy as np

from ..errors import InputError
from ..records import record
from ..untyped import Array
from .arrays import Arrays, Tensor, digests_of, only_array
from .features import grid_steps
from .framing import BGR, BILINEAR, FLOOR, RGB, ROUND, RULES, SQUASH, Framing
from .image_sources import open_images, refuse_missing
from .images import open_picture
from .pictures import read_pictures
from .source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..package.fields import Fields

__all__ = ["IMAGES", "ImageInputs", "read_framing"]

IMAGES = "images"
MAX_SIDE = 65_536  # px
MOST_TINTS = 8  # channels whose tint a drift watch knows; spectral images have hundreds
FLOORED = {f"{rule}-{FLOOR}": rule for rule in RULES}


@record
class ImageInputs:
    """Images uint8[N, H, W, C], NHWC, 0..255, as ``framing`` makes them. ``verb``: what the package does to them."""

    framing: Framing
    verb: str = "classifies"
    noun: str = IMAGES
    samples: Sequence[object] = ()
    media: str = "image/*"

    @property
    def shape(self) -> Tuple[int, int, int]:
        """(H, W, C) of one image."""
        return self.framing.shape

    @property
    def any_value(self) -> bool:
        """Whether arrays are good as they are: not where the network reads colours in another order than a user's."""
        return self.framing.color_order == RGB

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
        """``given`` as uint8[N, H, W, C]; an array of exactly this size is taken as it is, anything else is framed.

        Raises:
            InputError, BackendMissing: as ``read_pictures``.
        """
        return {IMAGES: read_pictures(only_array(given, IMAGES), self.framing)}

    def read_own(self, given: object, bgr: bool) -> Dict[str, Array]:
        """As ``read``, of what a user has: the colours of every array are RGB, or BGR as OpenCV's.

        Raises:
            InputError, BackendMissing: as ``read_pictures``.
        """
        return {IMAGES: read_pictures(only_array(given, IMAGES), self.framing, BGR if bgr else RGB)}

    def open_bytes(self, data: bytes, name: str) -> object:
        """The image in the bytes of a file, called ``name`` in messages, as ``read`` takes it.

        Raises:
            InputError, BackendMissing: as ``open_picture``.
        """
        return open_picture(name, self.framing.channels, io.BytesIO(data))

    def trim(self, feeds: Arrays) -> Arrays:
        """``feeds``: images have no padding."""
        return feeds

    def digests(self, feeds: Arrays) -> NDArray[np.uint64]:
        """Of each image the digest of its pixels, row by row, channel last."""
        return digests_of(feeds[IMAGES])

    def features(self, feeds: Arrays) -> Dict[str, NDArray[np.float32]]:
        """Of each image, float32[n], in steps of a pixel: mean brightness, contrast (standard deviation), detail (mean
        difference of neighbours: noise and blur move it) and, of colours, how far each channel's mean is from all."""
        images, (height, width, channels) = feeds[IMAGES], self.shape
        rows, columns = grid_steps(height, width)
        some = images[:, ::rows, ::columns].astype(np.float32)
        pixels = some.reshape(len(some), -1, channels)
        # This is beside every answer: as a product the sum is taken ten times as fast, and as exactly (whole numbers).
        means = np.matmul(np.ones((1, pixels.shape[1]), np.float32), pixels)[:, 0] / pixels.shape[1]
        brightness = np.add.reduce(means, axis=1) / channels
        flat = some.reshape(len(some), -1) - brightness[:, None]
        told = {"brightness": brightness, "contrast": np.sqrt(np.einsum("ij,ij->i", flat, flat) / flat.shape[1])}
        if width > 1:
            here, beside = images[:, ::rows, :-1:columns], images[:, ::rows, 1::columns]
            apart = (np.maximum(here, beside) - np.minimum(here, beside)).reshape(len(images), -1)
            told["detail"] = np.add.reduce(apart, axis=1, dtype=np.float32) / apart.shape[1]
        if channels > 1:
            told.update({f"tint_{c}": means[:, c] - brightness for c in range(min(channels, MOST_TINTS))})
        return told

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
        from .video import read_camera

        return Source(read_camera(camera, every), live=True)


def read_framing(field: Fields) -> Framing:
    """How a picture becomes the input, as ``package.json`` has it: ``resize`` is a ``resize_word``.

    Raises:
        PackageError: the input has another shape, or images are resized by a rule that is not applied here.
    """
    tensor = field.tensor("inputs.0")
    if len(tensor.dims) != 3 or None in tensor.sizes:
        rule = 'must be ["batch" or a size, height, width, channels]'
        raise field.wrong("inputs.0.shape", field.at("inputs.0.shape"), rule)
    height, width, channels = (int(n) for n in tensor.dims)
    rule = field.get("preprocessing.resize", str) if field.has("preprocessing.resize") else BILINEAR
    if rule != BILINEAR and rule not in (*RULES, *FLOORED):
        raise field.wrong(
            "preprocessing.resize",
            rule,
            f"must be one of {', '.join((BILINEAR, *RULES, *FLOORED))}: no other is applied",
        )
    try:
        framing = Framing(
            height,
            width,
            channels,
            resize=SQUASH if rule == BILINEAR else FLOORED.get(rule, rule),
            box=_numbers(field, "preprocessing.resize_size", ()),
            interpolation=_word(field, "preprocessing.interpolation", BILINEAR),
            fill=_numbers(field, "preprocessing.fill", (0,)),
            color_order=_word(field, "preprocessing.color_order", RGB),
            crop_offset=FLOOR if rule in FLOORED else ROUND,
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
