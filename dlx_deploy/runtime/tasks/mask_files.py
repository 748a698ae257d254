"""Masks as files: index PNGs, in which the value of a pixel is its class. Build and device read them here."""

from __future__ import annotations

import io
import logging
import os
import warnings
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np

from ..errors import InputError
from ..files import open_file, reason
from ..untyped import Foreign
from .framing import MAX_PIXELS, Framing, framed, pillow, unframed
from .images import DECODING, ORIENTATION, open_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "IGNORED",
    "OVERLAY",
    "draw_mask",
    "image_size",
    "load_mask",
    "load_pair",
    "mask_paths",
    "palette",
    "write_mask",
]

PathLike = Union[str, "os.PathLike[str]"]
IGNORED = 255
"""In a mask that was read: the pixel counts for nothing."""
_log = logging.getLogger(__name__)
MOST_DRAWN = 1024  # pixels of a side, of a mask that is sent for a page to show
OVERLAY = 0.5  # how much of the mask's colour lies over the image


def load_pair(pair: Tuple[Path, Path], framing: Framing, classes: int, ignore: int) -> NDArray[np.uint8]:
    """The mask of a pair, uint8[H, W], in the frame of its image; see ``load_mask``.

    Raises:
        InputError: as ``load_mask``, or the mask is not as large as its image, so that it is another's or was not
            turned as the image says.
    """
    image, mask = pair
    (width, height), turned = image_size(image)
    (own_width, own_height), _ = image_size(mask)
    if (width, height) != (own_width, own_height):
        raise InputError(
            f"{mask}: is {own_width} x {own_height} pixels, and its image {image.name} {width} x {height}, upright; "
            "they must be of one size"
        )
    if turned:
        _warn_of_turned(image.parent)
    return load_mask(mask, framing, classes, ignore)


def load_mask(path: PathLike, framing: Framing, classes: int, ignore: int) -> NDArray[np.uint8]:
    """The mask at ``path`` as uint8[H, W]: classes, or ``IGNORED`` where its value is ``ignore``, and in padding.

    It is framed as its image is, but by nearest neighbour: between two classes there is no third.

    Raises:
        InputError: no such file, no index or grey PNG of 8 bits, or a value that is no class.
        BackendMissing: Pillow is not here.
    """
    name, mask = os.fspath(path), _decoded(path, framing, ignore)
    ignored = mask == ignore
    outside = mask[(mask >= classes) & ~ignored]
    if len(outside):
        raise InputError(f"{name}: holds the value {int(outside[0])}; must be 0 to {classes - 1}, or {ignore}: ignored")
    mask[ignored] = IGNORED
    return mask


def mask_paths(named: Sequence[str], folder: PathLike) -> List[Tuple[str, str]]:
    """For each image that is ``named`` the paths ``FOLDER/STEM.mask.png`` and ``FOLDER/STEM.overlay.png``.

    Raises:
        InputError: two images have one name, or a file of this name is there.
    """
    paths: List[Tuple[str, str]] = []
    for name in named:
        stem = Path(name).stem
        mask, overlay = (os.path.join(os.fspath(folder), f"{stem}.{kind}.png") for kind in ("mask", "overlay"))
        if (mask, overlay) in paths or os.path.lexists(mask) or os.path.lexists(overlay):
            taken = mask if (mask, overlay) in paths or os.path.lexists(mask) else overlay
            raise InputError(f"{taken}: is there already; give another folder, or images of different names")
        paths.append((mask, overlay))
    return paths


def write_mask(mask: NDArray[np.uint8], framing: Framing, source: Foreign, paths: Tuple[str, str]) -> None:
    """Writes ``mask`` (uint8[H, W]) as large as the image ``source`` is, a file's or Pillow's, and laid over it.

    What the frame cut off is ``IGNORED`` in the file, and in the overlay the image alone.

    Raises:
        InputError: one of the two cannot be written, or is there.
    """
    opened = open_picture(source, 3) if isinstance(source, (str, os.PathLike)) else source.convert("RGB")
    picture = np.asarray(opened)
    indexed, shown = (unframed(part, framing, opened.size, IGNORED) for part in (mask, np.zeros_like(mask)))
    colours = palette()
    indexed.putpalette(colours.tobytes())
    laid_over = (picture * (1 - OVERLAY) + colours[np.asarray(indexed)] * OVERLAY).round().astype(np.uint8)
    over = np.where(np.asarray(shown)[..., np.newaxis] == IGNORED, picture, laid_over)
    try:
        for path, result in zip(paths, (indexed, pillow().fromarray(over))):
            with open(path, "xb") as out:
                result.save(out, "PNG")
    except OSError as e:
        raise InputError(f"{paths[0]}: cannot be written ({reason(e)}); give a folder that is there") from e


def draw_mask(mask: NDArray[np.uint8], framing: Framing, size: Optional[Tuple[int, int]]) -> bytes:
    """``mask`` (uint8[H, W]) as a PNG of its classes' colours for who shows it over its picture.

    ``size``: (height, width) of the picture, of which the PNG has the shape, of ``MOST_DRAWN`` at most; ``None``: that
    of the frame. What the frame cut off is clear.

    Raises:
        BackendMissing: Pillow is not here.
    """
    height, width = size or mask.shape
    shrunk = max(1.0, max(height, width) / MOST_DRAWN)
    fitted = (max(1, round(width / shrunk)), max(1, round(height / shrunk)))
    drawn = pillow().fromarray(mask) if size is None else unframed(mask, framing, fitted, IGNORED)
    drawn.putpalette(palette().tobytes())
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG", transparency=IGNORED)
    return buffer.getvalue()


def image_size(path: PathLike) -> Tuple[Tuple[int, int], bool]:
    """Width and height of an image as ``load_image`` sees it, upright, and whether its EXIF orientation turned it.

    Raises:
        InputError: it cannot be decoded, or is too large. BackendMissing: Pillow is not here.
    """
    from PIL import ImageOps

    with _opened(path, "an image") as image:
        turned = image.getexif().get(ORIENTATION, 1) not in (0, 1)
        upright = ImageOps.exif_transpose(image) if turned else image  # some formats are turned as they are opened
        return (upright.size[0], upright.size[1]), turned


def _decoded(path: PathLike, framing: Framing, padding: int) -> NDArray[np.uint8]:
    """The pixels of a mask in its frame, uint8[H, W]."""
    with _opened(path, "a mask") as image:
        _refuse_others(image, os.fspath(path))
        values = pillow().fromarray(np.array(image, np.uint8))  # of a palette, whose fill would be a colour
        return np.array(framed(values, framing, "nearest", (padding,)), np.uint8)


@contextmanager
def _opened(path: PathLike, what: str) -> Iterator[Foreign]:
    """The file at ``path`` as Pillow opens it; what goes wrong while it is used is said by its name."""
    image_module, name = pillow(), os.fspath(path)
    try:
        with warnings.catch_warnings(), open_file(path) as file:
            warnings.simplefilter("ignore", image_module.DecompressionBombWarning)  # its size is looked at below
            with image_module.open(file) as image:
                if image.size[0] * image.size[1] > MAX_PIXELS:
                    raise InputError(f"{name}: has {image.size[0]} x {image.size[1]} pixels; at most {MAX_PIXELS}")
                yield image
    except FileNotFoundError as e:
        raise InputError(f"{name}: no such file") from e
    except image_module.DecompressionBombError as e:
        raise InputError(f"{name}: too large to decode safely: {e}") from e
    except DECODING as e:
        # Pillow's own words for this one are those of a Python object.
        why = "no format that is read" if isinstance(e, image_module.UnidentifiedImageError) else reason(e)
        raise InputError(f"{name}: cannot be decoded as {what} ({why}); replace or remove it") from e


def _refuse_others(image: Foreign, name: str) -> None:
    """A mask is one PNG picture of 8 bits whose values are classes, and the way up that they are stored."""
    rule = "a mask is a PNG with a palette or of 8-bit grey, whose values are classes"
    if image.format != "PNG" or image.mode not in ("P", "L"):
        raise InputError(f"{name}: is a {image.format} of mode {image.mode}; {rule}")
    raw = image.tile[0][3] if image.tile else "L"
    raw = raw if isinstance(raw, str) else raw[0]
    if image.mode == "L" and raw != "L":  # Pillow stretches what has fewer bits: 1 of 2 bits becomes 85
        raise InputError(f"{name}: is grey of fewer than 8 bits ({raw}); {rule}; save it with 8 bits or a palette")
    if getattr(image, "n_frames", 1) > 1:
        raise InputError(f"{name}: holds {image.n_frames} frames; {rule}: save the one that counts by itself")
    if image.getexif().get(ORIENTATION, 1) not in (0, 1):
        raise InputError(f"{name}: has an EXIF orientation; {rule}: save it the way up that its image is seen")


@lru_cache(maxsize=64)
def _warn_of_turned(folder: Path) -> None:
    """Said once: where both sides are as long, or an image is only mirrored, a size cannot tell."""
    _log.warning(
        "%s: images are turned by their EXIF orientation; their masks must be drawn on what is seen",
        folder,
    )


def palette() -> NDArray[np.uint8]:
    """256 colours, uint8[256, 3], neighbours far apart: the bits of the class, the lowest first, from red to blue."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (((index >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours
