"""Images with a mask each, on their way into the artifact: in folders, or the built-in scenes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data import scenes
from dlx_deploy.nn.data.dataset import Images, Labels
from dlx_deploy.nn.data.frames import framing_of
from dlx_deploy.nn.data.groups import numbered_groups
from dlx_deploy.nn.data.imagefolder import decode_all, decode_images
from dlx_deploy.nn.data.images import ImageSource
from dlx_deploy.nn.data.listing import require_classes
from dlx_deploy.nn.data.mask_header import MaskHeader
from dlx_deploy.nn.data.mask_listing import list_masks, named_classes
from dlx_deploy.nn.data.mask_rows import mask_samples
from dlx_deploy.nn.data.splits import Indices, Part
from dlx_deploy.progress import Progress
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.mask_files import IGNORED, load_pair
from dlx_deploy.runtime.tasks.mask_folders import Pairs

__all__ = ["MaskTargets", "mask_source"]

SCENES = "scenes"
_VALUES, _MOST = 256, 255
"""A mask has 8 bits, and one value stands for what is ignored."""

Masks = NDArray[np.uint8]
"""uint8[N, H, W]: the class of each pixel, or 255 where it counts for nothing."""


@dataclass(frozen=True)
class MaskTargets:
    """A class for each pixel. ``load(split, position)`` gives one mask, uint8[H, W].

    ``shown``: split → the classes that each mask shows. ``ignored``: the value of pixels that count for nothing in the
    user's files, which may have a name of its own.
    """

    classes: tuple[str, ...]
    size: tuple[int, int]
    shown: Mapping[str, Sequence[frozenset[int]]]
    load: Callable[[str, int], NDArray[np.uint8]]
    allow_missing: bool
    ignored: int = IGNORED

    @property
    def strata(self) -> Mapping[str, Labels]:
        """Of each image the class that is shown by the fewest of the training images: it must not miss a split."""
        counts = Counter(k for shown in self.shown["train"] for k in shown)

        def rarest(shown: frozenset[int]) -> int:
            return min(shown, key=lambda k: (counts[k], k), default=0)

        return {split: np.array([rarest(one) for one in of], np.int64) for split, of in self.shown.items()}

    def lost(self, part: Part) -> list[int]:
        """Those that no image of ``part`` shows, though one of its split does."""
        of = self.shown[part.origin]
        return sorted(frozenset().union(*of) - frozenset().union(*(of[i] for i in part.positions)))

    def one(self, split: str, position: int) -> Hashable:
        """A digest of the mask."""
        return hashlib.blake2b(self.load(split, position).tobytes(), digest_size=16).digest()

    def write(self, out: Path, name: str, part: Part) -> None:
        """uint8[N, H, W], straight into the file.

        Raises:
            DataError: a mask cannot be used, or no pixel of the split is of some class.
        """
        path = out / f"{name}.{MaskHeader.MASKS}.npy"
        shape = (len(part.positions), *self.size)
        masks: Masks = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        seen = np.zeros(256, np.int64)
        for row, position in enumerate(part.positions):
            masks[row] = self.load(part.origin, int(position))
            seen += np.bincount(masks[row].reshape(-1), minlength=256)
        masks.flush()  # type: ignore[attr-defined]
        missing = [label for i, label in enumerate(self.classes) if not seen[i] and i != self.ignored]
        if name == "train" and missing:
            raise DataError(
                f"no pixel of the training masks is of class {missing[0]!r} ({len(missing)} such), so no network can "
                "learn it; add images of it, or leave it out of classes.txt and number the others without a gap"
            )
        if name in ("validation", "test"):
            require_classes(missing, f"the masks of the {name} split", name == "validation" or self.allow_missing)


def mask_source(config: Data, progress: Progress) -> ImageSource:
    """The images and masks that ``config`` names.

    Raises:
        DataError: their folders, sizes or classes cannot be used. EnvironmentMissing: a library is not installed.
    """
    return _scenes(config) if config.kind == SCENES else _folder(config, progress)


def _scenes(config: Data) -> ImageSource:
    images, masks = scenes.load_scenes()
    if config.channels == 1:
        images = images.mean(axis=3, keepdims=True).round().astype(np.uint8)
    size, shown = (scenes.SIDE, scenes.SIDE), {"train": [_shown(mask) for mask in masks]}
    targets = MaskTargets(scenes.CLASSES, size, shown, lambda split, i: masks[i], config.allow_missing_classes)

    def fill(split: str, positions: Indices, into: Images) -> None:
        into[:] = images[positions]

    return ImageSource(
        classes=scenes.CLASSES,
        targets=targets,
        shape=(*size, images.shape[3]),
        fill=fill,
        name=lambda split, i: f"scene {i}",
        config=config,
        make_header=partial(MaskHeader, ignore_index=IGNORED),
    )


def _folder(config: Data, progress: Progress) -> ImageSource:
    root = Path(config.path)
    framing = framing_of(config)
    pairs, left_out = list_masks(root)
    samples = mask_samples(config, pairs)
    named = named_classes(root)

    def load(split: str, position: int, classes: int = _VALUES) -> NDArray[np.uint8]:
        return load_pair(pairs[split][position], framing, classes, config.ignore_index)

    def look(split: str) -> list[frozenset[int]]:
        return _all_shown(len(pairs[split]), partial(load, split, classes=len(named) or _VALUES), progress)

    shown = {split: look(split) for split in pairs}
    classes = named or tuple(map(str, range(max(frozenset().union(*shown["train"]), default=-1) + 1)))
    if not 2 <= len(classes) <= _MOST:
        raise DataError(
            f"data.path: {root} has {len(classes)} classes beside the value {config.ignore_index}, which counts for "
            f"nothing (data.ignore_index); rule: 2 to {_MOST}, of 8 bits; of two classes the pixels are 0 and 1"
        )
    _refuse_unseen(pairs, shown, len(classes))

    def again(split: str, position: int) -> NDArray[np.uint8]:
        try:
            return load(split, position)
        except InputError as e:  # it could be read before
            raise DataError(f"data.path: {e}") from e

    def fill(split: str, positions: Indices, into: Images) -> None:
        decode_images([pairs[split][i][0] for i in positions], into, framing, progress)

    return ImageSource(
        classes=classes,
        targets=MaskTargets(
            classes, framing.shape[:2], shown, again, config.allow_missing_classes, config.ignore_index
        ),
        shape=framing.shape,
        fill=fill,
        name=lambda split, i: str(pairs[split][i][0]),
        config=config,
        framing=framing,
        counts={"files_left_out": float(left_out)},
        groups=numbered_groups({split: [sample.group for sample in of] for split, of in samples.items()}),
        slices={split: [sample.slices for sample in of] for split, of in samples.items()},
        make_header=partial(MaskHeader, ignore_index=config.ignore_index),
    )


def _all_shown(count: int, load: Callable[[int], NDArray[np.uint8]], progress: Progress) -> list[frozenset[int]]:
    """The classes that each mask shows: all masks are read before an image is decoded.

    Raises:
        DataError, EnvironmentMissing: as ``decode_all``.
    """
    shown = [frozenset[int]()] * count

    def look(position: int) -> None:
        shown[position] = _shown(load(position))

    decode_all(count, look, "masks", progress)
    return shown


def _shown(mask: NDArray[np.uint8]) -> frozenset[int]:
    return frozenset(np.unique(mask).tolist()) - {IGNORED}


def _refuse_unseen(pairs: Mapping[str, Pairs], shown: Mapping[str, Sequence[frozenset[int]]], classes: int) -> None:
    for split, of in shown.items():
        for (_, mask), values in zip(pairs[split], of, strict=True):
            if max(values, default=0) >= classes:
                raise DataError(
                    f"{mask}: holds the value {max(values)}, the training masks none above {classes - 1}; no network "
                    "knows what it was not shown: correct it, or add training images of it"
                )
