"""What models read and give: rows of several named arrays, and which of them are padded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.untyped import Array

__all__ = ["Arrays", "Samples", "Shape"]

Arrays = dict[str, Array]
"""Name → array, the batch axis first."""
Shape = Sequence[int | str | None]
"""A model's dimensions, the batch first: a number, or a name or ``None`` where it is open."""


@dataclass(frozen=True)
class Samples:
    """``arrays``: input name → array [N, ...], N the same for all: one sample per row.

    ``padding``: of an array [N, L] whose rows end early, the value that stands behind their ends. Such an array is cut
    or filled up to the length that a model takes; every other is read as it is.
    """

    arrays: Mapping[str, Array]
    padding: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {name: len(values) for name, values in self.arrays.items()}
        if len(set(sizes.values())) != 1:
            raise ConfigError(f"the inputs have {sizes} rows; rule: at least one input, and as many rows in each")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, rows: slice | NDArray[np.int64] | Sequence[int]) -> Samples:
        """The samples at ``rows``."""
        return Samples({name: values[rows] for name, values in self.arrays.items()}, self.padding)

    def repeated(self, times: int) -> Samples:
        """Each sample ``times`` times in a row."""
        return Samples({name: np.repeat(values, times, axis=0) for name, values in self.arrays.items()}, self.padding)

    def filled(self, size: int) -> Samples:
        """These, and copies of the last one up to ``size`` samples."""
        missing = size - len(self)
        if missing <= 0:
            return self
        full = {name: np.concatenate([v, np.repeat(v[-1:], missing, axis=0)]) for name, v in self.arrays.items()}
        return Samples(full, self.padding)

    def batches(self, size: int, fill: bool) -> Iterator[Samples]:
        """``size`` samples at a time; with ``fill`` the last batch is filled up with copies of the last sample."""
        for start in range(0, len(self), size):
            part = self[start : start + size]
            yield part.filled(size) if fill else part

    def fitted(self, shapes: Mapping[str, Shape]) -> Samples:
        """These as a model with inputs of ``shapes`` takes them: padded arrays of its length.

        Where that is open it is the length of the longest row. An input without a shape stays as it is.
        """
        arrays = dict(self.arrays)
        for name, value in self.padding.items():
            if name in shapes:
                arrays[name] = _of_length(arrays[name], shapes[name], value)
        return Samples(arrays, self.padding)

    def feed(self) -> Arrays:
        """The arrays as a session takes them."""
        return {name: np.ascontiguousarray(values) for name, values in self.arrays.items()}

    def describe(self) -> str:
        """The names, types and shapes, for messages."""
        return ", ".join(f"{name} {values.dtype}{list(values.shape)}" for name, values in self.arrays.items())

    def refuse_misfit(self, types: Mapping[str, str], shapes: Mapping[str, Shape]) -> None:
        """Nothing, if a model with inputs of ``types`` (as ``uint8``) and ``shapes`` takes these.

        Raises:
            ConfigError: it does not, or there are none.
        """
        fits = set(shapes) == set(self.arrays) and len(self) > 0
        if not fits or any(not self._fits(name, types[name], shape) for name, shape in shapes.items()):
            wanted = "; ".join(f"{types[n]}[N, {', '.join(str(d) for d in s[1:])}]" for n, s in shapes.items())
            raise ConfigError(f"the inputs are {self.describe()}; rule: {wanted} with at least one row")

    def _fits(self, name: str, kind: str, shape: Shape) -> bool:
        values, padded = self.arrays[name], name in self.padding
        return (
            str(values.dtype) == kind
            and values.ndim == len(shape)
            and all(
                not isinstance(want, int) or want == seen or (padded and want > seen)
                for want, seen in zip(shape[1:], values.shape[1:], strict=True)
            )
        )


def _of_length(rows: Array, shape: Shape, value: int) -> Array:
    """``rows`` [N, L], cut or filled up to a length of ``shape[1]``, or where that is open of the longest row."""
    longest = max(int((rows != value).sum(axis=1).max()), 1)
    length = shape[1] if isinstance(shape[1], int) and shape[1] > 0 else longest
    whole = np.full((len(rows), length), value, rows.dtype)
    kept = min(length, rows.shape[1])
    whole[:, :kept] = rows[:, :kept]
    return whole
