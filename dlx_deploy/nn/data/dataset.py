"""The data set as stages keep it: the inputs and targets of four splits as plain arrays, and how to read them.

A folder with ``dataset.json`` and, for each split, a file for each input and one for the targets: ``SPLIT.FILE.npy``,
a row per sample; ``SPLIT.groups.npy`` where samples of a split that judges come in groups. Which there are, of what
types and shapes, the header says, of which each task has its own (``headers``). Calibration is drawn from train; train,
validation and test are disjoint; each is shuffled, so that the first so many samples of a split stand for all of it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.graph.samples import Samples
from dlx_deploy.plugins import load_plugin
from dlx_deploy.runtime.schemas import newer_schema

__all__ = [
    "SCHEMA",
    "SPLITS",
    "Column",
    "Dataset",
    "Header",
    "Images",
    "Inputs",
    "Labels",
    "Tokens",
    "header_type",
    "open_data",
    "write_groups",
    "write_header",
    "write_labels",
]

SCHEMA = 1
SPLITS = ("train", "calibration", "validation", "test")
HEADERS = {
    "image-classification": "dlx_deploy.nn.data.headers:ImageHeader",
    "sequence-classification": "dlx_deploy.nn.data.headers:TextHeader",
    "semantic-segmentation": "dlx_deploy.nn.data.mask_header:MaskHeader",
}
"""Task → where its header is; those of other packages are entry points of the group ``dlx_deploy.headers``."""

Images = npt.NDArray[np.uint8]
"""uint8[N, H, W, C], NHWC, 0..255."""
Labels = npt.NDArray[np.int64]
"""int64[N], 0..classes - 1."""
Tokens = npt.NDArray[np.int32]
"""int32[N, L], padded after the ends."""
Inputs = npt.NDArray[Any]
"""What a split holds of one input."""


@dataclass(frozen=True)
class Column:
    """An array of a split, ``SPLIT.FILE.npy``: a row per sample, of ``dims`` (``None``: any, the same in one split).

    ``padding``: what stands behind the ends of rows that are shorter than others. ``aligned``: of targets [N, H, W]
    that say something of each pixel of an image, and move with it.
    """

    file: str
    dtype: str
    dims: tuple[int | None, ...] = ()
    padding: int | None = None
    aligned: bool = False

    def fits(self, values: npt.NDArray[Any], count: int) -> bool:
        """Whether ``values`` are ``count`` such rows."""
        shape = (count, *self.dims)
        return (
            str(values.dtype) == self.dtype
            and values.ndim == len(shape)
            and all(want in (None, seen) for want, seen in zip(shape, values.shape, strict=True))
        )

    def describe(self, count: int) -> str:
        """The type and shape of ``count`` rows."""
        return f"{self.dtype}[{', '.join('L' if n is None else str(n) for n in (count, *self.dims))}]"


LABELS = Column("labels", "int64")
"""The classes of samples that are each of one."""
GROUPS = Column("groups", "int64")
"""The groups of samples that are judged, where several are of one."""


class Header(msgspec.Struct, frozen=True, kw_only=True, tag_field="task"):
    """``dataset.json``: what all tasks say. A task's own header has the task's name as its tag."""

    classes: list[str]
    splits: dict[str, int]
    schema: int = SCHEMA

    @property
    def inputs(self) -> Mapping[str, Column]:
        """The inputs by the names that they have in an exported model."""
        raise NotImplementedError

    @property
    def targets(self) -> Column:
        """What a network learns to answer."""
        return LABELS


@dataclass(frozen=True)
class Dataset:
    """A prepared data set."""

    folder: Path
    header: Header

    @property
    def task(self) -> str:
        """The name of the task that these data are for."""
        return str(type(self.header).__struct_config__.tag)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their numbers."""
        return tuple(self.header.classes)

    @property
    def splits(self) -> Mapping[str, int]:
        """How many samples each split has."""
        return self.header.splits

    def samples(self, name: str) -> Samples:
        """The inputs of ``train``, ``calibration``, ``validation`` or ``test``, memory-mapped, read-only.

        Raises:
            DataError: there is no such split, or its arrays are not what ``dataset.json`` says.
        """
        columns = self.header.inputs
        arrays = {key: self._column(name, column, mapped=True) for key, column in columns.items()}
        return Samples(arrays, {key: c.padding for key, c in columns.items() if c.padding is not None})

    def targets(self, name: str) -> npt.NDArray[Any]:
        """The targets of a split, a row per sample.

        Raises:
            DataError: as ``samples``.
        """
        return self._column(name, self.header.targets, mapped=bool(self.header.targets.dims))

    def groups(self, name: str) -> Labels | None:
        """int64[N], the number of the group of each sample of a split; ``None``: each is one of its own.

        Raises:
            DataError: as ``samples``.
        """
        if not (self.folder / f"{name}.{GROUPS.file}.npy").exists():
            return None
        groups: Labels = self._column(name, GROUPS, mapped=False)
        return groups

    def split(self, name: str) -> tuple[Inputs, npt.NDArray[Any]]:
        """The one input of a split, and its targets.

        Raises:
            DataError: as ``samples``, or there are several inputs.
        """
        arrays = list(self.samples(name).arrays.values())
        if len(arrays) != 1:
            raise DataError(f"{self.folder}: the data have {len(arrays)} inputs; one is trained on at a time")
        return arrays[0], self.targets(name)

    def _column(self, split: str, column: Column, *, mapped: bool) -> npt.NDArray[Any]:
        if split not in self.splits:
            raise DataError(f"{self.folder}: no split {split!r}; {nearest(split, list(self.splits))}")
        path, count = self.folder / f"{split}.{column.file}.npy", self.splits[split]
        try:
            values: npt.NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        except (OSError, ValueError) as e:
            raise DataError(f"{path}: not a readable array ({e}); prepare the data again") from e
        if not column.fits(values, count):
            raise DataError(
                f"{self.folder}: {split} has {column.file} {values.dtype}{list(values.shape)}; dataset.json says "
                f"{column.describe(count)}; prepare the data again"
            )
        return values


def header_type(task: str) -> type[Header]:
    """The header of the data of ``task``.

    Raises:
        ConfigError: there is no such task.
    """
    if task not in HEADERS:
        plugin = load_plugin("header", task, list(HEADERS), "install the package that brings it")
        if not isinstance(plugin.value, type) or not issubclass(plugin.value, Header):
            raise ConfigError(f"entry point {plugin.point!r} gives {plugin.value!r}; rule: a subclass of Header")
        return plugin.value
    module, _, name = HEADERS[task].partition(":")
    kind: type[Header] = getattr(importlib.import_module(module), name)
    return kind


def open_data(folder: Path) -> Dataset:
    """The data set in ``folder``.

    Raises:
        DataError: ``dataset.json`` is missing, damaged, of a newer schema or for an unknown task.
    """
    path = folder / "dataset.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and (newer := newer_schema(raw.get("schema"), SCHEMA)):
            raise DataError(f"{path}: {newer}")
        task = str(raw.get("task")) if isinstance(raw, dict) else ""
        header = msgspec.convert(raw, header_type(task))
    except ConfigError as e:
        raise DataError(f"{path}: not a data set's header ({e})") from e
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}); this is no prepared data set") from e
    except (ValueError, msgspec.ValidationError) as e:
        raise DataError(f"{path}: not a data set's header ({e}); prepare the data again") from e
    return Dataset(folder, header)


def write_header(folder: Path, header: Header) -> None:
    """Write ``header`` as ``folder/dataset.json``, the same bytes for the same content, without what is ``None``."""
    content = {name: value for name, value in msgspec.to_builtins(header).items() if value is not None}
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    (folder / "dataset.json").write_text(text, encoding="utf-8")


def write_groups(folder: Path, split: str, groups: Labels) -> None:
    """Write the groups of a split's samples, numbered in the order in which they come; nothing where each is alone."""
    _, first, place = np.unique(groups, return_index=True, return_inverse=True)
    if len(first) < len(groups):
        rank = np.argsort(np.argsort(first))
        np.save(folder / f"{split}.{GROUPS.file}.npy", rank[place].astype(np.int64), allow_pickle=False)


def write_labels(folder: Path, split: str, labels: Labels) -> None:
    """Write the classes of a split's samples."""
    np.save(folder / f"{split}.{LABELS.file}.npy", labels, allow_pickle=False)
