"""The images that a word of the command line stands for: a file, a folder of them, or the frames of a video."""

from __future__ import annotations

import logging
import os
from typing import Iterator

from ..errors import InputError
from ..filenames import IMAGE_SUFFIXES
from .source import Sample, Source

__all__ = ["VIDEO_SUFFIXES", "open_images", "refuse_missing"]

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
"""What is read as a video, in any case."""

_log = logging.getLogger(__name__)


def open_images(argument: str, every: int = 1) -> Source:
    """The images behind ``argument``, taken as it is: ``*`` and ``[`` in a name are characters of it.

    A folder's images, those of folders below too, come in the order of their names; other files, videos too, are
    passed over with a warning. ``every``: of a video, each so many frames one is read.

    Raises:
        InputError: a folder without images, or that cannot be read.
    """
    if os.path.isdir(argument):
        return Source(_inside(argument))
    if argument.lower().endswith(VIDEO_SUFFIXES):
        from .video import read_video

        return Source(read_video(argument, every), live=True)
    return Source(iter([Sample(argument, argument)]))


def refuse_missing(argument: str, verb: str) -> None:
    """Refuses what is no file or folder here; ``verb``: what the package does to images.

    Raises:
        InputError: says so.
    """
    if os.path.lexists(argument):
        return
    if argument.lower().endswith(VIDEO_SUFFIXES):
        raise InputError(f"{argument}: no such video file")
    hint = f"; the package {verb} images: give their paths"
    raise InputError(f"{argument}: no such image file{'' if argument.lower().endswith(IMAGE_SUFFIXES) else hint}")


def _inside(folder: str) -> Iterator[Sample]:
    from .folders import counted, list_images  # a picture needs none of it

    names, others = list_images(folder)
    if not names:
        seen = f" ({counted(others)})" if others else ""
        raise InputError(f"{folder}: holds no images{seen}; an image's name ends in {', '.join(IMAGE_SUFFIXES)}")
    if others:
        _log.warning("%s: passed over what is no image: %s", folder, counted(others))
    return iter([Sample(path, path) for path in (os.path.join(folder, name) for name in names)])
