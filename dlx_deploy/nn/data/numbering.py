"""The classes and groups of a catalogue as numbers."""

from __future__ import annotations

import numpy as np

from dlx_deploy.nn.data.catalogue import Catalogue
from dlx_deploy.nn.data.dataset import Labels
from dlx_deploy.nn.data.groups import numbered_groups
from dlx_deploy.nn.data.listing import CALIBRATION

__all__ = ["class_numbers", "group_numbers"]


def class_numbers(catalogue: Catalogue) -> dict[str, Labels]:
    """Split → int64[N], the number of each image's class; -1 for those of calibration, which need none."""
    number = {"": -1, **{name: i for i, name in enumerate(catalogue.classes)}}
    return {
        split: np.array([-1 if split == CALIBRATION else number[s.label] for s in samples], np.int64)
        for split, samples in catalogue.samples.items()
    }


def group_numbers(catalogue: Catalogue) -> dict[str, Labels]:
    """Split → int64[N], a number for the group of each image, one of its own where it is of none; nothing where there
    are no groups."""
    return numbered_groups({split: [s.group for s in of] for split, of in catalogue.samples.items()})
