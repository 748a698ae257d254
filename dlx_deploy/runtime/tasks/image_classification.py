"""image-classification: images in, one class of several out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Sequence

from .classes import Classes, read_labels
from .framing import Framing
from .image_inputs import ImageInputs, read_framing
from .labelled import load_labelled_images, name_labelled_images
from .task import Task

if TYPE_CHECKING:
    from ..package.fields import Fields

__all__ = ["NAME", "image_classification", "open_task"]

NAME = "image-classification"


def image_classification(framing: Framing, labels: Sequence[str]) -> Task:
    """The task of a package that reads images uint8[N, H, W, C], made by ``framing``, and tells ``labels`` apart."""
    classes = tuple(labels)
    load = partial(load_labelled_images, labels=classes, framing=framing)
    return Task(NAME, ImageInputs(framing), Classes(classes), load, names=partial(name_labelled_images, labels=classes))


def open_task(field: Fields) -> Task:
    """The task as ``package.json`` has it.

    Raises:
        PackageError: a field is missing or of the wrong kind.
    """
    return image_classification(read_framing(field), read_labels(field))
