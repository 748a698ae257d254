"""The data artifact: images and labels of four splits as plain arrays, and how to normalise them.

A folder with ``dataset.json`` and, for each split, ``SPLIT.images.npy`` (uint8[N, H, W, C], NHWC, 0..255) and
``SPLIT.labels.npy`` (int64[N], 0..classes - 1). Calibration is drawn from train; train, validation and test are
disjoint; each is shuffled, so that the first so many images of a split stand for all of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from dlx_deploy.errors import DataError
from dlx_deploy.strict import nearest

__all__ = ["SCHEMA", "SPLITS", "DataArtifact", "Header", "Images", "Labels", "open_data", "write_header"]

SCHEMA = 1
SPLITS = ("train", "calibration", "validation", "test")

Images = npt.NDArray[np.uint8]
"""uint8[N, H, W, C], NHWC, 0..255."""
Labels = npt.NDArray[np.int64]
"""int64[N], 0..classes - 1."""

_Size = Annotated[int, Meta(ge=1)]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """``dataset.json``. ``mean`` and ``std`` are per channel, on the 0..1 scale."""

    classes: list[str]
    height: _Size
    width: _Size
    channels: _Size
    mean: list[float]
    std: list[float]
    splits: dict[str, int]
    schema: int = SCHEMA


@dataclass(frozen=True)
class DataArtifact:
    """A prepared data set. ``mean`` and ``std`` are per channel, on the 0..1 scale: ``(x / 255 - mean) / std``."""

    folder: Path
    classes: tuple[str, ...]
    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    splits: Mapping[str, int]

    def split(self, name: str) -> tuple[Images, Labels]:
        """The images (memory-mapped, read-only) and labels of ``train``, ``calibration``, ``validation`` or ``test``.

        Raises:
            DataError: there is no such split, or its arrays are not what ``dataset.json`` says.
        """
        if name not in self.splits:
            raise DataError(f"{self.folder}: no split {name!r}; {nearest(name, list(self.splits))}")
        images = self._array(f"{name}.images.npy", mapped=True)
        labels = self._array(f"{name}.labels.npy", mapped=False)
        shape = (self.splits[name], self.height, self.width, self.channels)
        if images.shape != shape or images.dtype != np.uint8 or labels.shape != shape[:1] or labels.dtype != np.int64:
            raise DataError(
                f"{self.folder}: {name} has images {images.dtype}{list(images.shape)} and labels "
                f"{labels.dtype}{list(labels.shape)}; dataset.json says uint8{list(shape)} and int64[{shape[0]}]"
            )
        return images, labels

    def _array(self, name: str, *, mapped: bool) -> Any:
        try:
            return np.load(self.folder / name, mmap_mode="r" if mapped else None, allow_pickle=False)
        except (OSError, ValueError) as e:
            raise DataError(f"{self.folder / name}: not a readable array ({e}); prepare the data again") from e


def open_data(folder: Path) -> DataArtifact:
    """The data artifact in ``folder``.

    Raises:
        DataError: ``dataset.json`` is missing, damaged or of a newer schema.
    """
    path = folder / "dataset.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and isinstance(raw.get("schema"), int) and raw["schema"] > SCHEMA:
            raise DataError(f"{path}: schema {raw['schema']} is newer than {SCHEMA}; update dlx-deploy")
        header = msgspec.convert(raw, Header)
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}); this is no prepared data set") from e
    except (ValueError, msgspec.ValidationError) as e:
        raise DataError(f"{path}: not a data set's header ({e}); prepare the data again") from e
    return DataArtifact(
        folder=folder,
        classes=tuple(header.classes),
        height=header.height,
        width=header.width,
        channels=header.channels,
        mean=tuple(header.mean),
        std=tuple(header.std),
        splits=header.splits,
    )


def write_header(folder: Path, header: Header) -> None:
    """Write ``header`` as ``folder/dataset.json``, the same bytes for the same content."""
    text = json.dumps(msgspec.to_builtins(header), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    (folder / "dataset.json").write_text(text, encoding="utf-8")
