"""What is known of images, on its way into the artifact: their classes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dlx_deploy.nn.data.dataset import Labels, write_labels
from dlx_deploy.nn.data.splits import Part

__all__ = ["ClassTargets", "ImageTargets"]


class ImageTargets(Protocol):
    """The targets of images, by the split that these come in and their positions there."""

    @property
    def strata(self) -> Mapping[str, Labels]:
        """Split → int64[N], the class of each image, by which splits are drawn; all 0 where it is of no one class."""
        ...

    def one(self, split: str, position: int) -> Hashable:
        """Something that is equal where the targets of two images are."""
        ...

    def write(self, out: Path, name: str, part: Part) -> None:
        """Write those of the split ``name``."""


@dataclass(frozen=True)
class ClassTargets:
    """A class for each image."""

    strata: Mapping[str, Labels]

    def one(self, split: str, position: int) -> Hashable:
        """The class."""
        return int(self.strata[split][position])

    def write(self, out: Path, name: str, part: Part) -> None:
        """int64[N]."""
        write_labels(out, name, self.strata[part.origin][part.positions])
