"""Which images of a folder have a mask: pairs by their names. Build and device list them here; standard library only.

A split is ``SPLIT/images`` beside ``SPLIT/masks``, or ``images/SPLIT`` beside ``masks/SPLIT``.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Dict, List, Tuple, Union

from ..errors import InputError
from ..filenames import IMAGE_SUFFIXES
from .folders import counted, list_images, refuse_untested, split_entries
from .labels import composed

__all__ = ["IMAGES", "MASKS", "Pairs", "judged_pairs", "labelled_pairs", "list_pairs", "split_folders"]

PathLike = Union[str, "os.PathLike[str]"]
Pairs = List[Tuple[Path, Path]]
"""Images and their masks."""
_log = logging.getLogger(__name__)
IMAGES, MASKS = "images", "masks"


def split_folders(root: Path) -> Dict[str, Tuple[Path, Path]]:
    """Split → its folders of images and of masks, those that there are.

    Raises:
        InputError: two folders are the same split, or a split has one of its two folders only.
    """
    nested = {part: split_entries(_folders(root / part), root / part) for part in (IMAGES, MASKS)}
    above = split_entries(_folders(root), root)
    if above and (nested[IMAGES] or nested[MASKS]):
        inside = sorted({*nested[IMAGES].values(), *nested[MASKS].values()})
        raise InputError(
            f"{root}: has splits beside {IMAGES} and {MASKS} ({', '.join(sorted(above.values()))}) and inside of them "
            f"({', '.join(inside)}); keep one of the two layouts"
        )
    if above:
        return {split: (root / name / IMAGES, root / name / MASKS) for split, name in above.items()}
    alone = sorted(nested[IMAGES].keys() ^ nested[MASKS].keys())
    if alone:
        lacking = MASKS if alone[0] in nested[IMAGES] else IMAGES
        raise InputError(f"{root / lacking}: has no folder {alone[0]!r}; each split needs one in {IMAGES} and {MASKS}")
    return {
        split: (root / IMAGES / name, root / MASKS / nested[MASKS][split]) for split, name in nested[IMAGES].items()
    }


def list_pairs(images: Path, masks: Path) -> Tuple[Pairs, List[str]]:
    """Image and mask of each name in the folders ``images`` and ``masks`` and below, sorted; and all other files.

    Raises:
        InputError: no such folders, nothing in them, an image without a mask, or the reverse, or two of one name.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; a split needs {IMAGES}/NAME.jpg and {MASKS}/NAME.png")
    pictures, others = _by_stem(images)
    maps, more = _by_stem(masks)
    alone = sorted(pictures.keys() ^ maps.keys())
    if alone:
        what = "mask" if alone[0] in pictures else "image"
        raise InputError(
            f"{maps.get(alone[0], pictures.get(alone[0]))}: has no {what} of its name ({len(alone)} such); add it or "
            "remove it"
        )
    if not pictures:
        raise InputError(f"{images}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return [(pictures[stem], maps[stem]) for stem in sorted(pictures)], [*others, *more]


def labelled_pairs(path: PathLike) -> Pairs:
    """The pairs of the test split in ``path``, or of ``path`` itself; what is left out is said.

    Raises:
        InputError: as ``judged_pairs``.
    """
    pairs, left_out = judged_pairs(path)
    if left_out:
        _log.warning("%s: %d files are left out: %s", os.fspath(path), len(left_out), counted(left_out))
    return pairs


def judged_pairs(path: PathLike) -> Tuple[Pairs, List[str]]:
    """Those of ``labelled_pairs``, and the files that are left out.

    Raises:
        InputError: as ``list_pairs``, or there are training images only.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give one that holds {IMAGES} and {MASKS}")
    splits = split_folders(root)
    refuse_untested(splits, root)
    return list_pairs(*splits.get("test", (root / IMAGES, root / MASKS)))


def _folders(root: Path) -> List[str]:
    return [p.name for p in root.iterdir() if p.is_dir()] if root.is_dir() else []


def _by_stem(root: Path) -> Tuple[Dict[str, Path], List[str]]:
    """The images in ``root`` and below by their relative names without suffix, and the other files."""
    names, others = list_images(root)
    paths: Dict[str, Path] = {}
    for name in names:
        stem = composed(os.path.splitext(name)[0])  # a Mac writes é as two characters, others as one
        if stem in paths:
            raise InputError(
                f"{root}: has {paths[stem].name} and {os.path.basename(name)}; remove or rename one of them"
            )
        paths[stem] = root / name
    return paths, others
