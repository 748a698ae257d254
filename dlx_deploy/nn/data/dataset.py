"""The data artifact: images or texts of four splits as plain arrays, their labels, and how to read them.

A folder with ``dataset.json`` and, for each split, ``SPLIT.images.npy`` (uint8[N, H, W, C], NHWC, 0..255) and
``SPLIT.labels.npy`` (int64[N], 0..classes - 1). Calibration is drawn from train; train, validation and test are
disjoint; each is shuffled, so that the first so many images of a split stand for all of it.

Texts have ``SPLIT.tokens.npy`` (int32[N, L], padded after their ends to the longest of the split) instead of images,
``SPLIT.texts.json`` (a list of strings) and ``tokenizer.json``.
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

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import DataError
from dlx_deploy.graph.model import INPUT, TOKENS
from dlx_deploy.graph.samples import Samples
from dlx_deploy.runtime.schemas import newer_schema

__all__ = [
    "SCHEMA",
    "SPLITS",
    "DataArtifact",
    "Header",
    "ImageHeader",
    "Images",
    "Inputs",
    "Labels",
    "TextHeader",
    "Tokens",
    "open_data",
    "write_header",
]

SCHEMA = 1
SPLITS = ("train", "calibration", "validation", "test")

Images = npt.NDArray[np.uint8]
"""uint8[N, H, W, C], NHWC, 0..255."""
Labels = npt.NDArray[np.int64]
"""int64[N], 0..classes - 1."""

Tokens = npt.NDArray[np.int32]
"""int32[N, L], padded after the ends."""
Inputs = npt.NDArray[Any]
"""Images or tokens: what a split holds."""

_Size = Annotated[int, Meta(ge=1)]


class ImageHeader(msgspec.Struct, frozen=True, kw_only=True, tag_field="task", tag="image-classification"):
    """``dataset.json`` of images. ``mean`` and ``std`` are per channel, on the 0..1 scale."""

    classes: list[str]
    height: _Size
    width: _Size
    channels: _Size
    mean: list[float]
    std: list[float]
    splits: dict[str, int]
    schema: int = SCHEMA


class TextHeader(msgspec.Struct, frozen=True, kw_only=True, tag_field="task", tag="sequence-classification"):
    """``dataset.json`` of texts. With ``truncate`` those of more than ``max_length`` tokens were cut."""

    classes: list[str]
    vocabulary: _Size
    max_length: _Size
    pad_id: Annotated[int, Meta(ge=0)]
    truncate: bool
    splits: dict[str, int]
    schema: int = SCHEMA


Header = ImageHeader | TextHeader


@dataclass(frozen=True)
class DataArtifact:
    """A prepared data set; the fields of the other task are 0 or empty.

    ``mean`` and ``std`` are per channel, on the 0..1 scale: ``(x / 255 - mean) / std``.
    """

    folder: Path
    classes: tuple[str, ...]
    splits: Mapping[str, int]
    height: int = 0
    width: int = 0
    channels: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    vocabulary: int = 0
    max_length: int = 0
    pad_id: int = 0
    truncate: bool = False

    @property
    def padding(self) -> int | None:
        """The token that pads, ``None`` for images."""
        return self.pad_id if self.is_text else None

    @property
    def is_text(self) -> bool:
        """Whether these are texts rather than images."""
        return self.vocabulary > 0

    def split(self, name: str) -> tuple[Inputs, Labels]:
        """The inputs (memory-mapped, read-only) and labels of ``train``, ``calibration``, ``validation`` or ``test``.

        Inputs are images uint8[N, H, W, C] or tokens int32[N, L].

        Raises:
            DataError: there is no such split, or its arrays are not what ``dataset.json`` says.
        """
        if name not in self.splits:
            raise DataError(f"{self.folder}: no split {name!r}; {nearest(name, list(self.splits))}")
        labels = self._array(f"{name}.labels.npy", mapped=False)
        if self.is_text:
            return self._tokens(name, labels), labels
        images = self._array(f"{name}.images.npy", mapped=True)
        shape = (self.splits[name], self.height, self.width, self.channels)
        if images.shape != shape or images.dtype != np.uint8 or labels.shape != shape[:1] or labels.dtype != np.int64:
            raise DataError(
                f"{self.folder}: {name} has images {images.dtype}{list(images.shape)} and labels "
                f"{labels.dtype}{list(labels.shape)}; dataset.json says uint8{list(shape)} and int64[{shape[0]}]"
            )
        return images, labels

    def samples(self, name: str) -> Samples:
        """The inputs of a split by the names that they have in an exported model.

        Raises:
            DataError: as ``split``.
        """
        rows, _ = self.split(name)
        return Samples({TOKENS: rows}, {TOKENS: self.pad_id}) if self.is_text else Samples({INPUT: rows})

    def texts(self, name: str) -> list[str]:
        """The texts of a split, in the order of its tokens.

        Raises:
            DataError: they are missing or damaged.
        """
        path = self.folder / f"{name}.texts.json"
        try:
            found = msgspec.json.decode(path.read_bytes(), type=list[str])
        except (OSError, msgspec.DecodeError) as e:
            raise DataError(f"{path}: not a list of texts ({e}); prepare the data again") from e
        return found

    @property
    def tokenizer(self) -> Path:
        """The ``tokenizer.json`` that made the tokens."""
        return self.folder / "tokenizer.json"

    def _tokens(self, name: str, labels: Labels) -> Tokens:
        tokens: Tokens = self._array(f"{name}.tokens.npy", mapped=True)
        count = self.splits[name]
        if tokens.ndim != 2 or tokens.dtype != np.int32 or len(tokens) != count or labels.shape != (count,):
            raise DataError(
                f"{self.folder}: {name} has tokens {tokens.dtype}{list(tokens.shape)} and {len(labels)} labels; "
                f"dataset.json says int32[{count}, L]"
            )
        return tokens

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
        refusal = newer_schema(raw.get("schema") if isinstance(raw, dict) else None, SCHEMA)
        if refusal:
            raise DataError(f"{path}: {refusal}")
        header: Header = msgspec.convert(raw, Header)
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}); this is no prepared data set") from e
    except (ValueError, msgspec.ValidationError) as e:
        raise DataError(f"{path}: not a data set's header ({e}); prepare the data again") from e
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in msgspec.structs.asdict(header).items()
    }
    del values["schema"]
    return DataArtifact(folder=folder, **values)


def write_header(folder: Path, header: Header) -> None:
    """Write ``header`` as ``folder/dataset.json``, the same bytes for the same content."""
    text = json.dumps(msgspec.to_builtins(header), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    (folder / "dataset.json").write_text(text, encoding="utf-8")
