"""image-classification: images in, one class of several out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Mapping, Sequence, Tuple

from ..files import PathLike
from .arrays import Arrays
from .classes import Classes, read_labels
from .framing import Framing
from .image_inputs import ImageInputs, read_framing
from .task import Task

if TYPE_CHECKING:
    from ..package.fields import Fields

__all__ = ["NAME", "image_classification", "open_task"]

NAME = "image-classification"


def image_classification(framing: Framing, labels: Sequence[str]) -> Task:
    """The task of a package that reads images uint8[N, H, W, C], made by ``framing``, and tells ``labels`` apart."""
    classes = tuple(labels)
    load = partial(_load_labelled, labels=classes, framing=framing)
    names = partial(_name_labelled, labels=classes)
    return Task(NAME, ImageInputs(framing), Classes(classes), load, names=names, columns=_columns_of)


def open_task(field: Fields) -> Task:
    """The task as ``package.json`` has it.

    Raises:
        PackageError: a field is missing or of the wrong kind.
    """
    return image_classification(read_framing(field), read_labels(field))


def _load_labelled(path: PathLike, labels: Sequence[str], framing: Framing) -> Tuple[object, Arrays]:
    from .labelled import load_labelled_images  # what predicts reads no labels

    return load_labelled_images(path, labels, framing)


def _name_labelled(path: PathLike, labels: Sequence[str]) -> Sequence[str]:
    from .labelled import name_labelled_images

    return name_labelled_images(path, labels)


def _columns_of(path: PathLike, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    from .labelled import columns_of_images

    return columns_of_images(path, names)
