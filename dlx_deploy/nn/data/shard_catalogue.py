"""Which labelled images there are inside of shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.catalogue import Catalogue, Sample
from dlx_deploy.nn.data.class_list import ClassList, check_names
from dlx_deploy.nn.data.huggingface import open_table
from dlx_deploy.nn.data.listing import ALL, CALIBRATION
from dlx_deploy.nn.data.packed import Packed
from dlx_deploy.nn.data.shards import HUGGINGFACE, WEBDATASET, find_shards
from dlx_deploy.nn.data.webdataset import open_tar
from dlx_deploy.runtime.tasks.labels import alike

__all__ = ["catalogue_of_shards"]

_OPEN: dict[str, Callable[[Path, str, tuple[str, ...]], Packed]] = {WEBDATASET: open_tar, HUGGINGFACE: open_table}


def catalogue_of_shards(path: Path, kind: str, slices: tuple[str, ...] = ()) -> Catalogue:
    """The images in the shards at ``path``; the classes in an order of the shards' own, where they have one.

    Only those of the split that is judged have ``slices``: ``test``, or that which it is drawn from.

    Raises:
        DataError: a shard cannot be read, an image has no class, or shards contradict each other.
        EnvironmentMissing: a library that reads them is not installed.
    """
    listed = find_shards(path, kind)
    judged = next((split for split in ("test", "train", ALL, "validation") if split in listed), "")
    shards = {
        split: [(name, _OPEN[kind](path / name, name, slices if split == judged else ())) for name in of]
        for split, of in listed.items()
    }
    samples: dict[str, tuple[Sample, ...]] = {}
    packed: dict[str, tuple[Packed, int]] = {}
    declared: dict[tuple[str, ...], str] = {}
    for split, of in shards.items():
        images = [(shard, number, image) for _, shard in of for number, image in enumerate(shard.images)]
        unlabelled = [image.name for _, _, image in images if not image.label]
        if unlabelled and split != CALIBRATION:
            raise DataError(
                f"data.path: {path}: {unlabelled[0]!r} has no class ({len(unlabelled)} of {len(images)} such in "
                f"{split}); rule: every image but those of calibration"
            )
        samples[split] = tuple(
            Sample(i.name, "" if split == CALIBRATION else i.label, i.group, i.slices) for _, _, i in images
        )
        packed.update({image.name: (shard, number) for shard, number, image in images})
        declared.update({shard.classes: name for name, shard in of if shard.classes})
    if len(declared) > 1:
        one, other = list(declared.values())[:2]
        raise DataError(
            f"data.path: {path}: {one!r} and {other!r} have other classes, or another order; make them alike"
        )
    labels = {split: {s.label for s in of if s.label} for split, of in samples.items() if split != CALIBRATION}
    if pair := alike(name for names in labels.values() for name in names):
        raise DataError(f"data.path: {path}: the labels {pair[0]!a} and {pair[1]!a} differ in their writing only")
    return Catalogue(
        path,
        "shards",
        samples,
        {split: str(path) if split == ALL else f"{path} ({split})" for split in samples},
        {split: tuple(sorted(names)) for split, names in labels.items()},
        declared=ClassList(path, tuple(check_names(path, next(iter(declared))))) if declared else None,
        packed=packed,
    )
