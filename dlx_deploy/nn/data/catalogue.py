"""Which labelled images there are, whatever they lie in: folders, or a list. Standard library only: a warm build asks.

A catalogue is what all layouts have in common; ``check_catalogue`` refuses what cannot be trained on or judged by.
"""

from __future__ import annotations

import functools
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.class_list import ClassList, read_class_list
from dlx_deploy.nn.data.listing import ALL, CALIBRATION, list_folder, warn_once
from dlx_deploy.nn.data.packed import Packed
from dlx_deploy.nn.data.shards import HUGGINGFACE, SHARDS, WEBDATASET
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.image_lists import ListedImage, read_list
from dlx_deploy.runtime.tasks.labels import alike, class_numbers, class_order, composed

__all__ = [
    "FOLDERS",
    "LIST",
    "NEEDED",
    "Catalogue",
    "Sample",
    "list_root",
    "listed_names",
    "open_catalogue",
    "regrouped",
]

T = TypeVar("T")
FOLDERS, LIST = "imagefolder", "imagelist"
NEEDED = {
    FOLDERS: "the folder that holds train/CLASS/*.jpg",
    LIST: "a .csv or .jsonl file with the columns path and label",
    WEBDATASET: "a folder of tar files train-00000.tar, or one such file",
    HUGGINGFACE: "a folder of train-00000.parquet files, or one that save_to_disk has written",
}
"""What ``data.path`` is."""


class Sample(NamedTuple):
    """An image: its name relative to the catalogue's root, its class ("": none is known), its group ("": none) and what
    it has in the columns of ``data.slices``."""

    name: str
    label: str
    group: str = ""
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """``samples``: split → its images, in a fixed order; where nothing says which split they are of, as ``ALL``.

    ``where``: split → what it lies in, for messages; ``place``: what that is. ``named``: split → its classes, those
    without an image too. ``classes``: all of them, in the order of their numbers. ``declared``: the file that says
    them, if one does. ``left_out``: names of files that are not used. ``packed``: name → where an image is that is no
    file of its own.
    """

    root: Path
    place: str
    samples: Mapping[str, tuple[Sample, ...]]
    where: Mapping[str, str]
    named: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...] = ()
    declared: ClassList | None = None
    left_out: tuple[str, ...] = ()
    packed: Mapping[str, tuple[Packed, int]] = field(default_factory=dict)

    def data(self, name: str) -> BinaryIO | None:
        """The bytes of an image that is no file of its own, else ``None``.

        Raises:
            InputError: they cannot be read.
        """
        if name not in self.packed:
            return None
        shard, number = self.packed[name]
        try:
            return io.BytesIO(shard.read(number))
        except InputError as e:
            raise InputError(f"{self.root / name}: {e}") from e

    @property
    def grouped(self) -> bool:
        """Whether images are of groups, which no split may share."""
        return any(sample.group for samples in self.samples.values() for sample in samples)


def open_catalogue(config: Data) -> Catalogue:
    """What ``config`` names, as it is: classes in their order, groups, and the splits that it comes in.

    Raises:
        DataError: it cannot be read, a label is no class of ``data.classes``, or a name has no group.
    """
    if config.kind in SHARDS:
        from dlx_deploy.nn.data.shard_catalogue import catalogue_of_shards

        catalogue = catalogue_of_shards(Path(config.path), config.kind, config.slices)
    else:
        catalogue = _of_list(config) if config.kind == LIST else _of_folders(Path(config.path))
    catalogue = as_used(catalogue, config)
    if config.group_by:
        catalogue = replace(catalogue, samples=regrouped(catalogue.samples, config.group_by))
    return with_classes(catalogue, config)


def as_used(catalogue: Catalogue, config: Data) -> Catalogue:
    """``catalogue``, whose undivided images are those of training, or of the test where nothing is trained."""
    split = "test" if config.use == "evaluation" else "train"

    def renamed(table: Mapping[str, T]) -> dict[str, T]:
        return {split if name == ALL else name: value for name, value in table.items()}

    return replace(
        catalogue,
        samples=renamed(catalogue.samples),
        where=renamed(catalogue.where),
        named=renamed(catalogue.named),
    )


def with_classes(catalogue: Catalogue, config: Data) -> Catalogue:
    """``catalogue`` with its classes in order: those of ``data.classes``, else of train, or of all without a train.

    Raises:
        DataError: the file of class names cannot be read, or lacks a class that there is.
    """
    if not config.classes and catalogue.declared:
        return replace(catalogue, classes=catalogue.declared.names)
    if not config.classes:
        _say_class_file(catalogue, config)
        own = [catalogue.named["train"]] if "train" in catalogue.named else list(catalogue.named.values())
        if config.use == "evaluation":
            own = list(catalogue.named.values())
        return replace(catalogue, classes=tuple(class_order(name for names in own for name in names)))
    declared = read_class_list(Path(config.classes))
    meant = _meant(declared, sorted({name for names in catalogue.named.values() for name in names}))
    unknown = [name for name, found in meant.items() if found is None]
    if unknown:
        raise DataError(
            f"{declared.path}: has no class {unknown[0]!r} ({len(unknown)} such), which {catalogue.root} holds; "
            "data.classes names every class: add it, or leave its images out"
        )
    known = {**{name: found or "" for name, found in meant.items()}, "": ""}
    samples = {
        split: tuple(sample._replace(label=known[sample.label]) for sample in of)
        for split, of in catalogue.samples.items()
    }
    named = {split: tuple(known[name] for name in names) for split, names in catalogue.named.items()}
    return replace(catalogue, samples=samples, named=named, classes=declared.names, declared=declared)


def _meant(declared: ClassList, labels: Sequence[str]) -> dict[str, str | None]:
    """Label → the class that it means; that labels are taken for numbers is said."""
    numbers = class_numbers(labels, declared.names)
    meant = {label: None if number is None else declared.names[number] for label, number in numbers.items()}
    first = labels[0] if labels else ""
    if first.isdecimal() and meant[first] is not None and first not in declared.names:
        warn_once(
            f"{declared.path}: labels are numbers, so they are taken for lines of it, from 0 on: {first} is "
            f"{meant[first]!r}"
        )
    return meant


def _say_class_file(catalogue: Catalogue, config: Data) -> None:
    beside = catalogue.root / "classes.txt"
    if beside.is_file():
        warn_once(f"{beside} is not read: classes are in the order of their names; to have its order set data.classes")


def _of_folders(root: Path) -> Catalogue:
    listed = list_folder(root)
    return Catalogue(
        root,
        "folder",
        {
            split: tuple(Sample(listed.name(split, name), group) for name, group in part.images)
            for split, part in listed.splits.items()
        },
        {split: str(listed.path(split)) for split in listed.splits},
        {split: part.classes for split, part in listed.splits.items() if split != CALIBRATION},
        left_out=listed.left_out,
    )


def _of_list(config: Data) -> Catalogue:
    rows = _rows(Path(config.path), config.slices)
    samples: dict[str, list[Sample]] = {}
    for row in rows:
        samples.setdefault(row.split or ALL, []).append(Sample(row.name, row.label, row.group, row.slices))
    labels = {split: {s.label for s in of if s.label} for split, of in samples.items() if split != CALIBRATION}
    if pair := alike(name for names in labels.values() for name in names):
        raise DataError(
            f"data.path: {config.path}: the labels {pair[0]!a} and {pair[1]!a} differ in their writing only; "
            "make them one"
        )
    return Catalogue(
        list_root(config),
        "rows",
        {split: tuple(sorted(of)) for split, of in sorted(samples.items())},
        {split: config.path if split == ALL else f"{config.path} ({split})" for split in samples},
        {split: tuple(sorted(names)) for split, names in labels.items()},
    )


def list_root(config: Data) -> Path:
    """The folder that the paths of a list are relative to."""
    return Path(config.root) if config.root else Path(config.path).parent


def listed_names(path: str, root: Path) -> list[str]:
    """The sorted names, relative to ``root``, of the images of the list at ``path`` that are there.

    Raises:
        DataError: the list cannot be used.
    """
    return sorted(row.name for row in _rows(Path(path)) if os.path.isfile(os.path.join(root, row.name)))


def _rows(path: Path, slices: tuple[str, ...] = ()) -> Sequence[ListedImage]:
    try:
        status = os.stat(path)
    except OSError as e:
        raise DataError(f"data.path: {path}: no such list of images; a .csv or .jsonl file with path and label") from e
    return _read(str(path), status.st_size, status.st_mtime_ns, slices)


@functools.lru_cache(maxsize=4)
def _read(path: str, size: int, changed: int, slices: tuple[str, ...]) -> Sequence[ListedImage]:
    """A list, which a build looks at more than once: for its files, its classes and its splits."""
    try:
        return tuple(read_list(path, slices))
    except InputError as e:
        raise DataError(f"data.path: {e}") from e


def regrouped(samples: Mapping[str, tuple[Sample, ...]], pattern: str) -> dict[str, tuple[Sample, ...]]:
    """``samples`` in the groups that the regular expression ``pattern`` finds in their names.

    A group is what its first parentheses match, or all of it.

    Raises:
        DataError: a name has no group.
    """
    compiled = re.compile(pattern)

    def group(sample: Sample) -> Sample:
        found = compiled.search(sample.name)
        text = found and (found.group(1) if compiled.groups else found.group())
        if not text:
            raise DataError(
                f"data.group_by is {pattern!r}, and finds no group in {sample.name!r}; rule: every image is of "
                "a group: match the names of all, or name the groups in a list"
            )
        return sample._replace(group=composed(text))

    return {split: of if split == CALIBRATION else tuple(map(group, of)) for split, of in samples.items()}
