"""What the list beside images with masks says of each: its group and its slices. Standard library only: a warm build
asks this."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.catalogue import Sample, regrouped
from dlx_deploy.nn.data.group_names import refuse_alike_groups, refuse_shared_groups
from dlx_deploy.nn.data.listing import warn_once
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.image_lists import DescribedImage, read_described
from dlx_deploy.runtime.tasks.labels import composed
from dlx_deploy.runtime.tasks.mask_folders import Pairs
from dlx_deploy.runtime.tasks.mask_lists import LISTS, columns_in, described, find_list
from dlx_deploy.runtime.words import GROUP_COLUMN

__all__ = ["mask_samples", "used_list"]

Rows = Mapping[str, DescribedImage]


def used_list(config: Data) -> Path | None:
    """The list in the folder of ``config``, if slices are asked for or it says groups.

    Raises:
        DataError: there are two, it cannot be used, or slices are asked for and there is none.
    """
    return _listed(config)[0]


def mask_samples(config: Data, pairs: Mapping[str, Pairs]) -> dict[str, tuple[Sample, ...]]:
    """Split → what each image of ``pairs``, in their order, is called, its group, and its slices where it is judged:
    in ``test``, or in ``train`` where that is drawn from it.

    Raises:
        DataError: as ``used_list``; an image is in no row, or has no group or slice; a group in two splits, or in two
            spellings.
    """
    path, rows = _listed(config)
    samples = {split: _samples(config, path, rows, split, pairs) for split in pairs}
    if path:
        _say_unused(path, rows, samples)
    if config.group_by:
        samples = regrouped(samples, config.group_by)
    groups = {split: [sample.group for sample in of] for split, of in samples.items()}
    refuse_alike_groups((group for of in groups.values() for group in of), config.path)
    refuse_shared_groups(groups, {split: f"the {split} split" for split in groups}, config)
    return samples


def _samples(config: Data, path: Path | None, rows: Rows, split: str, pairs: Mapping[str, Pairs]) -> tuple[Sample, ...]:
    images = [image for image, _ in pairs[split]]
    names = [image.relative_to(config.path).as_posix() for image in images]
    judged = split == ("test" if "test" in pairs else "train")
    grouped = not config.group_by and any(row.group for row in rows.values())
    if path is None or not (grouped or (judged and config.slices)):
        return tuple(Sample(name, "") for name in names)
    slices = config.slices if judged else ()
    try:
        found = described(path, rows, images, slices)
    except InputError as e:
        raise DataError(f"data.path: {e}") from e
    return tuple(Sample(name, "", row.group, row.slices) for name, row in zip(names, found, strict=True))


def _listed(config: Data) -> tuple[Path | None, Rows]:
    """The list that is used, and its rows."""
    root = Path(config.path)
    try:
        path = find_list(root)
    except InputError as e:
        raise DataError(f"data.path: {e}") from e
    if path is None:
        if config.slices and root.is_dir():
            header = ",".join(["path", *config.slices])
            raise DataError(
                f"data.slices is {list(config.slices)}, and {root} has no {' or '.join(LISTS)}; write one with the "
                f"columns {header}, a row for each image that is judged, its path as it is from there on"
            )
        return None, {}
    status = os.stat(path)
    rows = _read(path, config.slices, config.group_by == "", (status.st_size, status.st_mtime_ns))
    return (path if rows else None), rows


@functools.lru_cache(maxsize=4)
def _read(path: Path, slices: tuple[str, ...], grouped: bool, stamp: tuple[int, int]) -> Rows:
    """The rows of a list, which a build looks at more than once; none where nothing is asked of it."""
    try:
        if slices or (grouped and columns_in(path, [GROUP_COLUMN])):
            return read_described(path, slices)
        return {}
    except InputError as e:
        other = "" if slices else "; or call the file otherwise, if it says nothing of these images"
        raise DataError(f"data.path: {e}{other}") from e


def _say_unused(path: Path, rows: Rows, samples: Mapping[str, tuple[Sample, ...]]) -> None:
    names = {composed(sample.name) for of in samples.values() for sample in of}
    others = [name for name in rows if name not in names]
    if others:
        warn_once(f"{path}: {len(others)} of {len(rows)} rows name no image of a split (the first: {others[0]})")
