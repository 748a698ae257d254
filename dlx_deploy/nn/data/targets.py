"""What is known of samples, on its way into the artifact: their classes, or arrays of any kind."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.dataset import Column, Labels, write_labels
from dlx_deploy.nn.data.splits import Part

__all__ = ["ArrayTargets", "ClassTargets", "SampleTargets"]


class SampleTargets(Protocol):
    """The targets of images or texts, by the split that these come in and their positions there."""

    @property
    def strata(self) -> Mapping[str, Labels]:
        """Split → int64[N], by which splits are drawn: the class of each sample, or another number that tells them
        apart; all 0 where nothing does."""
        ...

    def lost(self, part: Part) -> list[int]:
        """The classes of which the split that ``part`` is drawn from has samples and it has none."""
        ...

    def one(self, split: str, position: int) -> Hashable:
        """Something that is equal where the targets of two samples are."""
        ...

    def write(self, out: Path, name: str, part: Part) -> None:
        """Write those of the split ``name``."""


@dataclass(frozen=True)
class ClassTargets:
    """A class for each sample."""

    strata: Mapping[str, Labels]

    def lost(self, part: Part) -> list[int]:
        """Those whose samples are all elsewhere."""
        strata = self.strata[part.origin]
        return [int(label) for label in np.setdiff1d(strata, strata[part.positions])]

    def one(self, split: str, position: int) -> Hashable:
        """The class."""
        return int(self.strata[split][position])

    def write(self, out: Path, name: str, part: Part) -> None:
        """int64[N]."""
        write_labels(out, name, self.strata[part.origin][part.positions])


@dataclass(frozen=True)
class ArrayTargets:
    """A row of an array for each sample, of no class: numbers to be told, for instance.

    ``rows``: split → an array as ``column`` says. Splits are drawn without strata.
    """

    column: Column
    rows: Mapping[str, NDArray[Any]]

    @property
    def strata(self) -> Mapping[str, Labels]:
        """All 0."""
        return {split: np.zeros(len(rows), np.int64) for split, rows in self.rows.items()}

    def lost(self, part: Part) -> list[int]:
        """None: there are no classes."""
        return []

    def one(self, split: str, position: int) -> Hashable:
        """The bytes of a row."""
        row: bytes = self.rows[split][position].tobytes()
        return row

    def write(self, out: Path, name: str, part: Part) -> None:
        """The rows of one split, as the column is called.

        Raises:
            DataError: they are of another type or shape than the column.
        """
        rows, count = self.rows[part.origin][part.positions], len(part.positions)
        if not self.column.fits(rows, count):
            raise DataError(
                f"the {part.origin} split's {self.column.file} are {rows.dtype}{list(rows.shape)}; the header says "
                f"{self.column.describe(count)}: make them alike"
            )
        np.save(out / f"{name}.{self.column.file}.npy", rows, allow_pickle=False)
