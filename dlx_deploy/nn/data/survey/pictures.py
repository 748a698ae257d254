"""Image files looked at one by one, as a build reads them: what they are, and why one cannot be read."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from dlx_deploy.nn.data.imagefolder import decode_all
from dlx_deploy.nn.data.survey.sketches import Sketch, sketch
from dlx_deploy.progress import Progress
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.files import open_file
from dlx_deploy.runtime.tasks.framing import Framing, pillow
from dlx_deploy.runtime.tasks.images import fit_image, open_picture

__all__ = ["SIDE", "Look", "Opener", "in_files", "look_at", "look_at_all", "thumbnail"]

_ORIENTATION = 0x0112  # of EXIF's tags
SIDE = 112
"""Pixels of a picture on a contact sheet."""
_QUALITY = 80


class Look(NamedTuple):
    """A picture: ``width`` and ``height`` in px, upright; Pillow's names of its ``mode`` and ``format``.

    ``digest``: equal for pictures that are the same to the network.
    """

    width: int
    height: int
    mode: str
    format: str
    turned: bool
    digest: bytes
    sketch: Sketch


Opener = Callable[[str], BinaryIO | None]
"""The name of an image → its bytes, or ``None`` where it is a file."""


def in_files(name: str) -> None:
    """``None``: every image is a file."""


def look_at(path: Path, framing: Framing | None, data: Callable[[], BinaryIO | None]) -> Look:
    """The picture at ``path``, or in ``data``; with a ``framing`` two are the same if they are so in their frame, else
    at full size.

    Raises:
        InputError: a build could not read it, and why.
    """
    picture = open_picture(path, framing.channels if framing else 3, data())
    with data() or open_file(path) as file, pillow().open(file) as header:
        mode, kind = str(header.mode), str(header.format)
        turned = header.getexif().get(_ORIENTATION, 1) not in (0, 1)
    pixels = fit_image(picture, framing) if framing else np.asarray(picture)
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=f"{pixels.shape[:2]}".encode()[:16]).digest()
    width, height = picture.size
    return Look(width, height, mode, kind, turned, digest, sketch(picture))


def look_at_all(
    root: Path, names: Sequence[str], framing: Framing | None, progress: Progress, data: Opener
) -> tuple[dict[int, Look], dict[int, str]]:
    """Each of the ``names`` below ``root``, by its number: those that can be read, and why others cannot.

    Raises:
        EnvironmentMissing: there is no Pillow.
    """
    seen: dict[int, Look] = {}

    def look(position: int) -> None:
        name = names[position]
        seen[position] = look_at(root / name, framing, lambda: data(name))

    failures = decode_all(len(names), look, "images", progress, spare=1.0)
    return seen, {i: _without_path(str(e), root / names[i]) for i, e in sorted(failures.items())}


def thumbnail(root: Path, name: str, data: Opener = in_files) -> bytes | None:
    """A JPEG of at most ``SIDE`` px a side of the picture ``name`` below ``root``; ``None`` if it cannot be read."""
    try:
        picture = open_picture(root / name, 3, data(name))
    except InputError:
        return None
    picture.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def _without_path(reason: str, path: Path) -> str:
    return reason.removeprefix(f"{path}: ")
