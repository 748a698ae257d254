"""semantic-segmentation: images in, a class for each pixel out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, List, Mapping, Sequence, Tuple

import numpy as np

from ..filenames import DATA_HEADER
from .arrays import Arrays, only_array
from .classes import read_labels
from .framing import Framing
from .image_inputs import IMAGES, ImageInputs, read_framing
from .images import load_image
from .labelled import load_npy, load_prepared, stored_columns
from .mask_files import load_pair
from .mask_folders import labelled_pairs
from .masks import MASK, Masks
from .pictures import picture_sizes
from .segmentations import Segmentations
from .task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..package.fields import Fields
    from .mask_files import PathLike

__all__ = ["NAME", "load_masks", "open_task", "semantic_segmentation"]

NAME = "semantic-segmentation"
MOST_CLASSES = 255  # a mask has 8 bits, and one value is ignored


def semantic_segmentation(framing: Framing, labels: Sequence[str], ignore: int = 255) -> Task:
    """The task of a package that reads images uint8[N, H, W, C], made by ``framing``, and tells ``labels`` apart."""
    masks = Masks(tuple(labels), framing, ignore)
    load = partial(load_masks, framing=framing, labels=masks.labels, ignore=ignore)
    placed = partial(_placed, framing=framing)
    return Task(NAME, ImageInputs(framing, "segments"), masks, load, placed, _names, _columns_of)


def open_task(field: Fields) -> Task:
    """The task as ``package.json`` has it.

    Raises:
        PackageError: a field is missing or of the wrong kind.
    """
    framing, labels = read_framing(field), read_labels(field)
    if len(labels) > MOST_CLASSES:
        raise field.wrong("labels", labels, f"must be at most {MOST_CLASSES}")
    return semantic_segmentation(framing, labels, field.count("ignore_index", 0, 255))


def load_masks(
    path: PathLike, framing: Framing, labels: Sequence[str], ignore: int
) -> Tuple[NDArray[np.uint8], Arrays]:
    """The images in ``path/test/images`` or ``path/images``, uint8[N, H, W, C], and their masks, uint8[N, H, W].

    A data folder with a ``dataset.json`` gives the arrays of its test split.

    Raises:
        InputError: as ``labelled_pairs``, ``load_image`` and ``load_pair``; a data folder that is damaged, or of other
            classes than ``labels``. BackendMissing: Pillow is not here.
    """
    root = Path(path)
    if (root / DATA_HEADER).is_file():
        stored, masks = load_prepared(root, labels, lambda: load_npy(root / "test.images.npy"), "masks")
        return stored, {MASK: masks}
    pairs = labelled_pairs(root)
    images = np.stack([load_image(image, framing) for image, _ in pairs])
    return images, {MASK: np.stack([load_pair(pair, framing, len(labels), ignore) for pair in pairs])}


def _names(path: PathLike) -> List[str]:
    root = Path(path)
    return [] if (root / DATA_HEADER).is_file() else [str(image) for image, _ in labelled_pairs(root)]


def _columns_of(path: PathLike, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    from .mask_lists import listed_columns  # what predicts reads no list

    return stored_columns(Path(path), names) if (Path(path) / DATA_HEADER).is_file() else listed_columns(path, names)


def _placed(answers: Segmentations, given: object, framing: Framing) -> Segmentations:
    return answers.placed(picture_sizes(only_array(given, IMAGES), framing))
