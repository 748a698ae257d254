"""Slices of the test split: what each of its samples has in the columns of ``data.slices``, in a file of its own.

Beside the data set and not in it: networks that were trained on these data stay what they are when slices are asked
for. No numpy: gates of a warm build read it too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from dlx_deploy.errors import DataError
from dlx_deploy.runtime.filenames import SLICES

__all__ = ["SLICES", "Slices", "named", "read_slices", "slice_sizes", "write_slices"]

Slices = Mapping[str, Sequence[str]]
"""Column → what each test sample has there, in the order of the split."""


def write_slices(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write what each sample, a row each, has in ``columns``."""
    content = {name: [row[i] for row in rows] for i, name in enumerate(columns)}
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def read_slices(path: Path) -> Slices:
    """What is in ``path``.

    Raises:
        DataError: it is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, list[str]])
    except (OSError, msgspec.DecodeError) as e:
        raise DataError(f"{path}: not a table of slices ({e}); prepare the data again") from e


def slice_sizes(slices: Slices) -> dict[str, int]:
    """Slice → how many samples it has, the columns one after the other, the largest first."""
    return {
        named(column, value): count
        for column, values in slices.items()
        for value, count in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    }


def named(column: str, value: str) -> str:
    """A slice, as ``[gate.slices]`` and tables call it."""
    return f"{column}={value}"
