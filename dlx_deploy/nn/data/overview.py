"""What a user's data look like before anything is decoded: how many of what, and how large some of them are."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec.structs import replace

from dlx_deploy.config import LAYOUTS, Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.catalogue import open_catalogue
from dlx_deploy.nn.data.catalogue_checks import check_catalogue
from dlx_deploy.nn.data.listing import split_of, text_names
from dlx_deploy.nn.data.mask_listing import list_masks, named_classes
from dlx_deploy.runtime.errors import InputError

__all__ = ["Overview", "overview"]

_SAMPLED = 200
"""Files whose headers are read: spread evenly, they show the usual size."""
_GREY = ("1", "L", "LA", "I", "I;16")


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """``splits``: split → samples in its folder or file. ``classes``: their names; empty where files do not say.

    ``smallest`` and ``largest``: the number of training samples of a class. ``height``, ``width``: the median of the
    images looked at, 0 where there are none; ``least_side`` and ``most_side``: of all sides. ``channels``: 1 where
    every image is grey, else 3; 0 for texts. ``unreadable``: of the files looked at.
    """

    kind: str
    path: str
    splits: dict[str, int]
    classes: tuple[str, ...]
    smallest: int = 0
    largest: int = 0
    looked_at: int = 0
    height: int = 0
    width: int = 0
    least_side: int = 0
    most_side: int = 0
    channels: int = 0
    unreadable: int = 0

    def count(self, split: str, data: Data) -> int:
        """The samples that ``split`` will have, drawn from the training samples where it is no folder of its own."""
        train = self.splits.get("train", 0)
        test = self.splits.get("test", round(train * data.test_fraction))
        train -= 0 if "test" in self.splits else test
        validation = self.splits.get("validation", round(train * data.validation_fraction))
        train -= 0 if "validation" in self.splits else validation
        return {"train": train, "validation": validation, "test": test}[split]


def overview(config: Data) -> Overview:
    """What the data of ``config`` are, as their listing and the headers of some files say.

    Raises:
        DataError: they cannot be used as they are, or this kind cannot be looked at.
    """
    if config.kind in LAYOUTS:
        return _of_catalogue(config)
    if config.kind == "maskfolder":
        return _of_masks(Path(config.path))
    if config.kind == "text":
        return _of_texts(Path(config.path))
    raise DataError(
        f"data of kind {config.kind!r} cannot be looked at; write the configuration with: dlx-deploy init FILE"
    )


def _of_catalogue(config: Data) -> Overview:
    catalogue = open_catalogue(config)
    check_catalogue(catalogue, replace(config, allow_missing_classes=True))
    counts = Counter(sample.label for sample in catalogue.samples.get("train", ()))
    names = [sample.name for samples in catalogue.samples.values() for sample in samples]

    def opened(name: str) -> Path | BinaryIO:
        return catalogue.data(name) or catalogue.root / name

    return Overview(
        kind=config.kind,
        path=config.path,
        splits={split: len(samples) for split, samples in catalogue.samples.items()},
        classes=catalogue.classes,
        smallest=min(counts.values(), default=0),
        largest=max(counts.values(), default=0),
        **_sizes(names, opened),
    )


def _of_masks(path: Path) -> Overview:
    splits, _ = list_masks(path)
    files = [str(image) for pairs in splits.values() for image, _ in pairs]
    return Overview(
        kind="maskfolder",
        path=str(path),
        splits={split: len(pairs) for split, pairs in splits.items()},
        classes=named_classes(path),
        **_sizes(files, Path),
    )


def _of_texts(path: Path) -> Overview:
    from dlx_deploy.runtime.tasks.text_files import read_texts

    files = [path] if path.is_file() else [path / name for name in text_names(path)]
    try:
        rows = {(split_of(file.name) if path.is_dir() else None) or "train": read_texts(file)[1] for file in files}
    except InputError as e:
        raise DataError(str(e)) from e
    counts = Counter(rows.get("train", ()))
    if len(counts) < 2:
        raise DataError(f"{path}: has {len(counts)} classes in its training texts; a classifier needs at least 2")
    return Overview(
        kind="text",
        path=str(path),
        splits={split: len(names) for split, names in rows.items()},
        classes=tuple(sorted(counts)),
        smallest=min(counts.values()),
        largest=max(counts.values()),
    )


def _sizes(names: Sequence[str], opened: Callable[[str], Path | BinaryIO]) -> Mapping[str, int]:
    """What headers of some of the images ``names`` say, as fields of ``Overview``."""
    from PIL import Image

    step = max(len(names) // _SAMPLED, 1)
    chosen = names[::step][:_SAMPLED]
    seen: list[tuple[int, int, str]] = []
    for name in chosen:
        try:
            with Image.open(opened(name)) as image:
                seen.append((image.height, image.width, image.mode))
        except (OSError, ValueError, SyntaxError, InputError, Image.DecompressionBombError):
            continue  # the build says which, and why
    if not seen:
        raise DataError(f"{chosen[0] if chosen else 'the data'}: none of {len(chosen)} images can be opened")
    sides = [side for height, width, _ in seen for side in (height, width)]
    return {
        "looked_at": len(chosen),
        "height": round(statistics.median(height for height, _, _ in seen)),
        "width": round(statistics.median(width for _, width, _ in seen)),
        "least_side": min(sides),
        "most_side": max(sides),
        "channels": 1 if all(mode in _GREY for _, _, mode in seen) else 3,
        "unreadable": len(chosen) - len(seen),
    }
