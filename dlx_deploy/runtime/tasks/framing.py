"""How a picture of any size becomes the pixels that a network reads: the one rule of training, calibration and device.

Numbers are rounded as torchvision and timm round them, so that a network sees what its own library would show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Tuple

from ..errors import BackendMissing, InputError
from ..records import record, replace
from ..untyped import Foreign

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "BGR",
    "BILINEAR",
    "COLOR_ORDERS",
    "CROP",
    "CROP_OFFSETS",
    "FILTERS",
    "FLOOR",
    "LETTERBOX",
    "MAX_PIXELS",
    "RGB",
    "ROUND",
    "RULES",
    "SQUASH",
    "Framing",
    "Placement",
    "framed",
    "pillow",
    "place",
    "resize_word",
    "unframed",
]

SQUASH, CROP, LETTERBOX = RULES = ("squash", "crop", "letterbox")
"""How a picture meets the box that it is resized to: it becomes the box, covers it, or lies within it."""
BILINEAR = "bilinear"
FILTERS = ("nearest", "box", BILINEAR, "hamming", "bicubic", "lanczos")
"""Pillow's, by its names; the support of all but nearest grows when an image shrinks (antialiasing)."""
RGB, BGR = COLOR_ORDERS = ("rgb", "bgr")
ROUND, FLOOR = CROP_OFFSETS = ("round", "floor")
"""Where what is kept begins if an odd number of px is cut off: torchvision rounds halves to even, Hugging Face down."""
MAX_PIXELS = 89_478_485
"""Where Pillow begins to warn of a bomb: 358 MB as it holds RGB, from a file that may have some kilobytes."""


@record
class Framing:
    """A picture becomes uint8[height, width, channels], 0..255: grey (1) or colour (3), as all that can be decoded is.

    It is resized by ``interpolation`` to meet a box, and of the result the centre is taken. ``box`` is (height, width);
    empty: the size itself, of which nothing is cut off but by the rule ``crop``. ``fill``: the colour of padding, red
    first, or one value for all channels. ``color_order``: in which order the network reads colours. ``crop_offset``:
    how half of what is cut off is rounded.

    Raises:
        InputError: a value that there is not, or values that do not fit each other.
    """

    height: int
    width: int
    channels: int
    resize: str = SQUASH
    box: Tuple[int, ...] = ()
    interpolation: str = BILINEAR
    fill: Tuple[int, ...] = (0,)
    color_order: str = RGB
    crop_offset: str = ROUND

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(f"height and width are {self.height} and {self.width}; must be at least 1 px")
        for name, value, known in (
            ("resize", self.resize, RULES),
            ("interpolation", self.interpolation, FILTERS),
            ("color_order", self.color_order, COLOR_ORDERS),
            ("crop_offset", self.crop_offset, CROP_OFFSETS),
        ):
            if value not in known:
                raise InputError(f"{name} is {value!r}; must be one of {', '.join(known)}")
        if self.box and (len(self.box) != 2 or self.box[0] < self.height or self.box[1] < self.width):
            raise InputError(
                f"the box is {list(self.box)}; must be a height and a width in px, at least {self.height} and "
                f"{self.width}: nothing is there to cut out of a smaller picture"
            )
        if self.box == (self.height, self.width):
            object.__setattr__(self, "box", ())  # one spelling of it, so that equal frames are equal
        if not self.box and self.resize != CROP:
            object.__setattr__(self, "crop_offset", ROUND)  # nothing is cut off
        if len(self.fill) not in (1, self.channels) or not all(0 <= value <= 255 for value in self.fill):
            raise InputError(f"fill is {list(self.fill)}; must be one value or one for each channel, 0 to 255")

    @property
    def shape(self) -> Tuple[int, int, int]:
        """(H, W, C) of what comes out."""
        return self.height, self.width, self.channels

    @property
    def target(self) -> Tuple[int, int]:
        """The box, (height, width) in px."""
        return (self.box[0], self.box[1]) if self.box else (self.height, self.width)

    @property
    def plain(self) -> bool:
        """Whether a picture is squashed to the size bilinearly, and no more: all that there was at first."""
        return replace(self, fill=(0,)) == Framing(*self.shape)


@record
class Placement:
    """A picture resized to ``width`` x ``height`` px, its upper left corner ``left`` and ``top`` px inside the frame.

    Negative: so much is cut off there.
    """

    width: int
    height: int
    left: int
    top: int


def place(framing: Framing, width: int, height: int) -> Placement:
    """Where a picture of ``width`` x ``height`` px lies in its frame.

    Raises:
        InputError: it would have to become too large to be decoded safely: one side is many times the other.
    """
    new_width, new_height = _resized(framing, width, height)
    if new_width * new_height > MAX_PIXELS:
        raise InputError(
            f"has {width} x {height} pixels, and would be resized to {new_width} x {new_height} before it is cut to "
            f"{framing.width} x {framing.height}; at most {MAX_PIXELS}: cut it yourself, or leave it out"
        )
    left, top = (
        _before(room, framing.crop_offset) for room in (framing.width - new_width, framing.height - new_height)
    )
    return Placement(new_width, new_height, left, top)


def framed(image: Foreign, framing: Framing, filter_name: str, fill: Tuple[int, ...]) -> Foreign:
    """Pillow's ``image`` in its frame, of the same mode, resized by ``filter_name``; ``fill`` where it does not reach.

    Raises:
        InputError: as ``place``.
    """
    at = place(framing, *image.size)
    if image.size != (at.width, at.height):
        image = _resized_image(image, at, _filter(filter_name))
    if image.size == (framing.width, framing.height):
        return image
    if at.left <= 0 and at.top <= 0:
        return image.crop((-at.left, -at.top, framing.width - at.left, framing.height - at.top))
    canvas = pillow().new(image.mode, (framing.width, framing.height), fill[0] if len(fill) == 1 else fill)
    canvas.paste(image, (at.left, at.top))
    return canvas


def unframed(mask: NDArray[np.uint8], framing: Framing, size: Tuple[int, int], outside: int) -> Foreign:
    """The way back of a ``mask`` (uint8[H, W]): Pillow's image of the ``size`` (width, height) that its picture had.

    ``outside``: the value of pixels that the frame does not show.
    """
    module, at = pillow(), place(framing, *size)
    whole = module.new("L", (at.width, at.height), outside)
    whole.paste(module.fromarray(mask), (-at.left, -at.top))
    return whole if whole.size == size else whole.resize(size, _filter("nearest"))


def resize_word(framing: Framing) -> str:
    """What ``preprocessing.resize`` says of ``framing``, in a word that each reader applies as it is meant, or refuses.

    It is "bilinear" where images are squashed so and no more: the first readers know nothing else. What is cut off by
    another rounding than theirs has words of its own too: a field that they do not know would be passed over.
    """
    if framing.plain:
        return BILINEAR
    return framing.resize if framing.crop_offset == ROUND else f"{framing.resize}-{framing.crop_offset}"


def pillow() -> Foreign:
    """Pillow's module ``Image``.

    Raises:
        BackendMissing: it is not here.
    """
    try:
        from PIL import Image
    except ImportError as e:
        raise BackendMissing(f"Pillow cannot be imported ({e}); install it with: pip install pillow") from e
    return Image


def _resized(framing: Framing, width: int, height: int) -> Tuple[int, int]:
    """Width and height that a picture is resized to."""
    box_height, box_width = framing.target
    if framing.resize == SQUASH:
        return box_width, box_height
    if framing.resize == CROP and box_width == box_height:  # torchvision's rule, which cuts the longer side's fraction
        short, side = min(width, height), box_width
        return (side, int(side * height / short)) if width <= height else (int(side * width / short), side)
    ratios = width / box_width, height / box_height  # timm's rule, which rounds
    ratio = min(ratios) if framing.resize == CROP else max(ratios)
    return max(round(width / ratio), 1), max(round(height / ratio), 1)


def _resized_image(image: Foreign, at: Placement, resampling: Foreign) -> Foreign:
    """``image`` of the size of ``at``: its rows first, then its columns.

    Asked for both at once Pillow 12.2 and newer take the columns of tall pictures first and so round otherwise: the
    device would see other pixels than training did, and ``verify`` would not know its images.
    """
    return image.resize((at.width, image.size[1]), resampling).resize((at.width, at.height), resampling)


def _before(room: int, crop_offset: str) -> int:
    """How much of ``room`` px lies before what is centred in it; negative: so much is cut off."""
    if room >= 0:
        return room // 2
    return -(-room // 2) if crop_offset == FLOOR else -round(-room / 2)


def _filter(name: str) -> Foreign:
    module = pillow()
    return getattr(getattr(module, "Resampling", module), name.upper())  # Pillow before 9.1 has no Resampling
