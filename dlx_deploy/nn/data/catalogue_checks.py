"""What is refused of a catalogue of images before any of them is read. Standard library only: a warm build asks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dlx_deploy.config import LAYOUTS, Data
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.nn.data.catalogue import FOLDERS, LIST, Catalogue, open_catalogue
from dlx_deploy.nn.data.group_names import refuse_alike_groups
from dlx_deploy.nn.data.listing import CALIBRATION, require_classes, text_names, warn_once
from dlx_deploy.nn.data.mask_listing import MASK_FOLDERS, list_masks
from dlx_deploy.nn.data.mask_rows import mask_samples, used_list
from dlx_deploy.nn.data.shards import SHARDS, find_shards
from dlx_deploy.runtime.filenames import IMAGE_SUFFIXES
from dlx_deploy.runtime.tasks.labels import same_but_for_writing

__all__ = ["check_catalogue", "check_layout", "check_source"]


def check_source(config: Data) -> None:
    """Refuse the user's data as the data stage would, before anything is read.

    Raises:
        DataError: see ``open_catalogue``, ``check_catalogue``, ``text_names`` and ``mask_samples``.
    """
    if config.kind in (FOLDERS, LIST) and config.path:
        check_catalogue(open_catalogue(config), config)
    elif config.kind in SHARDS and config.path:
        find_shards(Path(config.path), config.kind)  # to look into them takes seconds: the stage does
    elif config.kind == "text" and config.path and not Path(config.path).is_file():
        text_names(Path(config.path))
    elif config.kind == MASK_FOLDERS and config.path and (config.group_by or used_list(config)):
        mask_samples(config, list_masks(Path(config.path))[0])


def check_layout(data: Data) -> None:
    """Refuse keys that say where labelled images come from, for data that come from elsewhere.

    Raises:
        ConfigError: names the key.
    """
    layouts = dict.fromkeys(("classes", "max_bad_fraction", "use"), LAYOUTS)
    sliced = (LIST, "text", *SHARDS, MASK_FOLDERS)
    own = {"root": (LIST,), "slices": sliced, "group_by": (*LAYOUTS, MASK_FOLDERS), **layouts}
    for key, kinds in own.items():
        value = getattr(data, key)
        if value != getattr(Data(), key) and data.kind not in kinds:
            shown = list(value) if isinstance(value, tuple) else repr(value)
            raise ConfigError(
                f"data.{key} is {shown}, and data.kind is {data.kind!r}; only {', '.join(map(repr, kinds))} "
                f"{'have' if len(kinds) > 1 else 'has'} it: leave it out"
            )


def check_catalogue(catalogue: Catalogue, config: Data) -> None:
    """Refuse what cannot be trained on or judged by; with ``data.allow_missing_classes`` a split without some class is
    only said. Where nothing is trained, images to train on are not asked for.

    Raises:
        DataError: no images to train on or to judge by, one class only, a class without training images, a split
            without images, a class that training has not, or that a split has not; a group in two splits; more files
            are missing than ``data.max_bad_fraction``.
    """
    trains = config.use != "evaluation"
    if trains:
        _check_training(catalogue)
    else:
        _check_evaluation(catalogue)
    for split, samples in catalogue.samples.items():
        if not samples:
            raise DataError(
                f"{catalogue.where[split]}: no image ({', '.join(IMAGE_SUFFIXES)}){_IN[split == CALIBRATION]}; "
                "add images, or remove the folder to have the split drawn from train"
            )
        if split != CALIBRATION and (split != "train" or not trains):
            _check_split(catalogue, split, config)
    refuse_alike_groups((sample.group for of in catalogue.samples.values() for sample in of), str(catalogue.root))
    _refuse_shared_groups(catalogue, config)
    _refuse_missing_files(catalogue, config)


_IN = (" in any class folder", "")


def _check_training(catalogue: Catalogue) -> None:
    if "train" not in catalogue.samples:
        rule = (
            f"an imagefolder has train/CLASS/*.jpg (or .png){_UNTRAINED}"
            if catalogue.place == "folder"
            else _UNTRAINED[2:]
        )
        raise DataError(f"data.path: {catalogue.root} has no train {catalogue.place}; {rule}")
    where, named = catalogue.where["train"], catalogue.named["train"]
    if len(named) < 2:
        seen = f"one class only ({named[0]!r})" if named else "no class folder"
        kinds = "train/CLASS folders for" if catalogue.place == "folder" else "images of"
        raise DataError(f"{where}: {seen}; a classifier needs {kinds} at least 2 classes")
    empty = _without_images(catalogue, "train")
    if empty and catalogue.declared:
        raise DataError(
            f"{catalogue.declared.path}: class {empty[0]!r} has no training image in {where} ({len(empty)} such), so "
            f"no network can learn it; add images, or remove its line{_UNTRAINED}"
        )
    if empty:
        raise DataError(
            f"{where}/{empty[0]}: no image ({', '.join(IMAGE_SUFFIXES)}) in this class ({len(empty)} such); "
            "add images or remove the folder"
        )


_UNTRAINED = "; where nothing is trained (teacher.epochs = 0, without distill and prune) a test folder is enough"


def _check_evaluation(catalogue: Catalogue) -> None:
    if not {"test", "validation", "train"} & set(catalogue.samples):
        raise DataError(
            f"data.path: {catalogue.root} has no labelled images; rule: test/CLASS/*.jpg, class folders, or a list "
            "with labels: a network is judged by them"
        )
    if len(catalogue.classes) < 2:
        raise DataError(
            f"data.path: {catalogue.root}: {len(catalogue.classes)} class; rule: at least 2. Name those that have no "
            "images in a file, as data.classes"
        )


def _check_split(catalogue: Catalogue, split: str, config: Data) -> None:
    where, classes = catalogue.where[split], catalogue.classes
    unknown = [name for name in catalogue.named[split] if name not in set(classes)]
    if unknown:
        near = same_but_for_writing(unknown[0], classes)
        hint = f"; {near!r} differs in its writing only: rename one of them" if near else ""
        raise DataError(
            f"{where}: class {unknown[0]!r} is not in train ({len(unknown)} such); train has: "
            f"{', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}{hint}"
        )
    missing = _without_images(catalogue, split)
    if split == "test" or config.use != "evaluation":
        require_classes(missing, where, config.allow_missing_classes)


def _without_images(catalogue: Catalogue, split: str) -> list[str]:
    filled = {sample.label for sample in catalogue.samples[split]}
    return [name for name in catalogue.classes if name not in filled]


def _refuse_shared_groups(catalogue: Catalogue, config: Data) -> None:
    """Images of one group (one patient, one scene) in two splits: what a network is judged by must be new to it."""
    origin: dict[str, tuple[str, str]] = {}
    shared: list[tuple[str, str, str]] = []
    for split in ("train", "validation", "test"):
        for name, _, group, _ in catalogue.samples.get(split, ()):
            if group:
                first = origin.setdefault(group, (split, name))
                shared += [(group, first[1], name)] if first[0] != split else []
    if not shared:
        return
    groups = len({group for group, _, _ in shared})
    text = (
        f"{catalogue.root}: group {shared[0][0]!r} is in two splits ({groups} such): {shared[0][1]} and {shared[0][2]}"
    )
    if not config.allow_leakage:
        raise DataError(
            f"{text}; what a network is judged by must be new to it: keep a group in one split, or set "
            "data.allow_leakage = true"
        )
    warn_once(f"{text}; data.allow_leakage is true, so they stay")


def _refuse_missing_files(catalogue: Catalogue, config: Data) -> None:
    """Files that only a list names."""
    if catalogue.place != "rows":
        return
    for split, samples in catalogue.samples.items():
        missing = [s.name for s in samples if not os.path.isfile(os.path.join(catalogue.root, s.name))]
        refuse_bad(
            missing,
            len(samples),
            f"{catalogue.where[split]}: {{}} of {{}} images are no files below {catalogue.root}",
            config,
        )


def refuse_bad(names: Sequence[str], count: int, text: str, config: Data) -> None:
    """Refuse that ``names`` of ``count`` files cannot be used, if that is more than ``data.max_bad_fraction``.

    ``text``: says so, with places for the two numbers.

    Raises:
        DataError: they are more.
    """
    if len(names) > config.max_bad_fraction * count:
        raise DataError(
            f"{text.format(len(names), count)}; the first: {names[0]}; correct the list, or leave some out with "
            f"data.max_bad_fraction (now {config.max_bad_fraction:g})"
        )
