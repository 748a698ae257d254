"""Image files looked at one by one, as a build reads them: what they are, and why one cannot be read."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlx_deploy.nn.data.imagefolder import decode_all
from dlx_deploy.nn.data.survey.sketches import Sketch, sketch
from dlx_deploy.progress import Progress
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.files import open_file
from dlx_deploy.runtime.tasks.framing import Framing, pillow
from dlx_deploy.runtime.tasks.images import fit_image, open_picture

__all__ = ["SIDE", "Look", "look_at", "look_at_all", "thumbnail"]

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


def look_at(path: Path, framing: Framing | None) -> Look:
    """The picture at ``path``; with a ``framing`` two are the same if they are so in their frame, else at full size.

    Raises:
        InputError: a build could not read it, and why.
    """
    picture = open_picture(path, framing.channels if framing else 3)
    with open_file(path) as file, pillow().open(file) as header:
        mode, kind = str(header.mode), str(header.format)
        turned = header.getexif().get(_ORIENTATION, 1) not in (0, 1)
    pixels = fit_image(picture, framing) if framing else np.asarray(picture)
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=f"{pixels.shape[:2]}".encode()[:16]).digest()
    width, height = picture.size
    return Look(width, height, mode, kind, turned, digest, sketch(picture))


def look_at_all(
    paths: Sequence[Path], framing: Framing | None, progress: Progress
) -> tuple[dict[int, Look], dict[int, str]]:
    """Each of ``paths``, by its number: those that can be read, and why others cannot.

    Raises:
        EnvironmentMissing: there is no Pillow.
    """
    seen: dict[int, Look] = {}

    def look(position: int) -> None:
        seen[position] = look_at(paths[position], framing)

    failures = decode_all(len(paths), look, "images", progress, spare=1.0)
    return seen, {i: _without_path(str(e), paths[i]) for i, e in sorted(failures.items())}


def thumbnail(path: Path, side: int = SIDE) -> bytes | None:
    """A JPEG of at most ``side`` x ``side`` px of the picture at ``path``; ``None`` if it cannot be read."""
    try:
        picture = open_picture(path, 3)
    except InputError:
        return None
    picture.thumbnail((side, side), reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def _without_path(reason: str, path: Path) -> str:
    return reason.removeprefix(f"{path}: ")
