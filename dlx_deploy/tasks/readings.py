"""Other ways in which the same pictures could have been read: what is tried where a package feeds others than its
build did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Arrays
    from dlx_deploy.runtime.tasks.framing import Framing
    from dlx_deploy.runtime.tasks.task import Inputs
    from dlx_deploy.runtime.untyped import Array

__all__ = ["Reading", "image_readings", "png_of", "turned_by_exif"]

_BOXES = (1.0, 256 / 224, 1 / 0.95, 1 / 0.9)
"""Of how much larger the box is than what is cut out of it: networks were trained with one of these, mostly."""
_MAX_PIXEL = 255
_ORIENTATION = 0x0112
"""EXIF's tag."""
_BACK = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_90",
    7: "TRANSVERSE",
    8: "ROTATE_270",
}
"""Its values → what brings an upright picture back to how the file stores it."""
_SIDE = 112
"""Pixels of a picture to be looked at: a smaller one is enlarged by a whole factor, so that its pixels show."""


class Reading(NamedTuple):
    """``arrays``: the samples read so; ``name``: what was done otherwise, and ``said``: in words, of the build."""

    name: str
    said: str
    arrays: Arrays


def image_readings(inputs: Inputs, feeds: Arrays, files: Sequence[str]) -> Iterator[Reading]:
    """Of the images ``feeds``, uint8[N, H, W, C], which were read from ``files`` (none: they came as pixels).

    The likeliest first: colours, layout, scale; pictures as their files store them, which EXIF says are to be turned;
    then how they are brought to their size.
    """
    ((key, pixels),) = feeds.items()
    yield from _as_pixels(key, pixels)
    framing: Framing | None = getattr(inputs, "framing", None)
    if not files or framing is None:
        return
    import numpy as np

    from dlx_deploy.runtime.errors import RuntimeFault
    from dlx_deploy.runtime.tasks.images import load_image

    if (stored := _as_stored(files, framing)) is not None:
        yield Reading(
            "orientation", "as their files store them, and not turned by their EXIF orientation", {key: stored}
        )
    for name, said, other in _framings(framing):
        try:
            yield Reading(name, said, {key: np.stack([load_image(path, other) for path in files])})
        except RuntimeFault:  # a picture that cannot be framed so
            continue


def _as_pixels(key: str, pixels: Array) -> Iterator[Reading]:
    import numpy as np

    if pixels.shape[-1] > 1:
        swapped = np.ascontiguousarray(pixels[..., ::-1])
        yield Reading("channels", "with its colours in the other order (RGB and BGR are swapped)", {key: swapped})
    if pixels.shape[1] == pixels.shape[2]:
        turned = np.ascontiguousarray(pixels.swapaxes(1, 2))
        yield Reading("layout", "with rows and columns swapped", {key: turned})
    for quarters, said in (
        (2, "upside down"),
        (3, "turned by a quarter to the right"),
        (1, "turned by a quarter to the left"),
    ):
        if quarters == 2 or pixels.shape[1] == pixels.shape[2]:
            turned = np.ascontiguousarray(np.rot90(pixels, quarters, axes=(1, 2)))
            yield Reading("orientation", f"{said}, as an EXIF orientation has it", {key: turned})
    if int(pixels.max(initial=0)) <= 1:
        yield Reading("scale", "as 0..255, and not as 0..1", {key: pixels * np.array(_MAX_PIXEL, pixels.dtype)})


def _as_stored(files: Sequence[str], framing: Framing) -> Array | None:
    """The pictures in ``files`` without their EXIF orientation; ``None`` where none has one, or one cannot be read."""
    import numpy as np
    from PIL import Image

    from dlx_deploy.runtime.errors import RuntimeFault
    from dlx_deploy.runtime.tasks.images import fit_image, open_picture

    turned = [_orientation_of(path) for path in files]
    if not any(value in _BACK for value in turned):
        return None
    stored = []
    for path, value in zip(files, turned, strict=True):
        try:
            picture = open_picture(path, framing.channels)
            back = picture.transpose(Image.Transpose[_BACK[value]]) if value in _BACK else picture
            stored.append(fit_image(back, framing))
        except RuntimeFault:
            return None
    return np.stack(stored)


def turned_by_exif(files: Sequence[str]) -> int:
    """How many of the pictures in ``files`` are turned by their EXIF orientation."""
    return sum(_orientation_of(path) in _BACK for path in files)


def _orientation_of(path: str) -> int:
    """The EXIF orientation that a picture's file has; 1, as it is seen, where it has none or is no picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError):
        return 1


def _framings(framing: Framing) -> Iterator[tuple[str, str, Framing]]:
    """Every other rule, box and filter; first those that differ in one of them alone."""
    from dlx_deploy.runtime.tasks.framing import CROP, FILTERS, RULES

    height, width = framing.height, framing.width
    boxes = {(): "", framing.box: ""} | {(round(height * f), round(width * f)): "" for f in _BOXES if f > 1}
    found: dict[Framing, str] = {}
    for rule in (framing.resize, *RULES):
        for box in boxes:
            for kind in (framing.interpolation, *FILTERS):
                other = replace(framing, resize=rule, box=box, interpolation=kind)
                changed = [
                    name
                    for name, is_other in (
                        ("resize", rule != framing.resize),
                        ("crop", other.box != framing.box and (rule == CROP or bool(box))),
                        ("interpolation", kind != framing.interpolation),
                    )
                    if is_other
                ]
                if other != framing and changed:
                    found.setdefault(other, " and ".join(changed))
    for other, name in sorted(found.items(), key=lambda item: item[1].count(" and ")):
        within = f", box {other.box[0]} x {other.box[1]}" if other.box else ""
        yield name, f"by resize = '{other.resize}', interpolation = '{other.interpolation}'{within}", other


def png_of(inputs: Inputs, feeds: Arrays, row: int) -> bytes:
    """One of the images ``feeds``, uint8[N, H, W, 1 or 3], in its colours, as PNG of about ``_SIDE`` pixels."""
    import io

    import numpy as np
    from PIL import Image

    from dlx_deploy.runtime.tasks.framing import BGR

    ((_, pixels),) = feeds.items()
    one = pixels[row]
    framing: Framing | None = getattr(inputs, "framing", None)
    if framing is not None and framing.color_order == BGR:
        one = one[..., ::-1]
    image = Image.fromarray(np.ascontiguousarray(one[..., 0] if one.shape[-1] == 1 else one))
    factor = _SIDE / max(image.size)
    size = [max(round(side * (int(factor) or factor)), 1) for side in image.size]
    image = image.resize((size[0], size[1]), Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BILINEAR)
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()
