"""Some pictures as they came: what the network's own library makes of them is held against what networks read here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dlx_deploy.nn.data.splits import Indices

__all__ = ["keep_originals", "original_files"]

_FOLDER = "originals"
_MOST_BYTES = 64 << 20
"""Of all of them together: photographs of 64 megapixels are not worth more room."""


def keep_originals(out: Path, count: int, positions: Indices, read: Callable[[int], BinaryIO]) -> None:
    """Write the bytes of ``count`` of the images at ``positions``, evenly spread over them, below ``out``.

    They are called by numbers: no name of the user's, which may be anything, becomes a path.
    """
    folder = out / _FOLDER
    folder.mkdir()
    room = _MOST_BYTES
    for number, step in enumerate(np.unique(np.linspace(0, len(positions) - 1, count).round().astype(np.int64))):
        with read(int(positions[step])) as file:
            content = file.read(room + 1)
        if len(content) > room:
            return
        room -= len(content)
        (folder / f"{number:04}").write_bytes(content)


def original_files(data: Path) -> list[Path]:
    """The files of the data set in the folder ``data`` that are kept as they came, in a fixed order."""
    return sorted((data / _FOLDER).iterdir()) if (data / _FOLDER).is_dir() else []
