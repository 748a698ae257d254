"""Arrays by name: what they are, how they are cut, told apart by digests, and how close two sets of them are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Iterable, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from ..digests import sha256
from ..records import record, replace
from ..untyped import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BLOCK_BYTES",
    "Agreement",
    "Arrays",
    "Filled",
    "Tensor",
    "Tolerance",
    "block_rows",
    "count_of",
    "digests_of",
    "joined",
    "only_array",
    "rows_of",
    "samples_of",
    "within",
]

BLOCK_BYTES = 256 * 1024**2
"""Of the inputs and outputs that are run at a time: a map of classes for each pixel is megabytes a sample."""
Arrays = Mapping[str, "Array"]
"""Arrays by the name of an input, an output or a column; all with as many rows, one a sample."""


class Filled(Dict[str, "Array"]):
    """Inputs of a model of fixed batch size: the first ``samples`` rows were given, the others are copies."""

    def __init__(self, arrays: Arrays, samples: int) -> None:
        super().__init__(arrays)
        self.samples = samples


@record
class Tensor:
    """A named input, output or column. ``dims`` behind the batch: sizes, or names of those that differ by call."""

    name: str
    dtype: str
    dims: Tuple[Union[int, str], ...]
    layout: str = ""

    def to_dict(self, batch: Optional[int]) -> Dict[str, object]:
        """As ``package.json`` holds it; ``batch`` is the fixed batch size or ``None``."""
        table: Dict[str, object] = {"name": self.name, "dtype": self.dtype, "shape": [batch or "batch", *self.dims]}
        return {**table, "layout": self.layout} if self.layout else table

    @property
    def sizes(self) -> Tuple[Optional[int], ...]:
        """The dimensions behind the batch, ``None`` for those that differ."""
        return tuple(n if isinstance(n, int) else None for n in self.dims)

    @property
    def row_bytes(self) -> int:
        """The bytes of one sample; dimensions that differ count as one."""
        size: int = np.dtype(self.dtype).itemsize
        for n in self.sizes:
            size *= n or 1
        return size

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an array of ``shape``, its batch axis included, can be this one."""
        sizes = self.sizes
        return len(shape) == len(sizes) + 1 and all(n in (None, shape[i + 1]) for i, n in enumerate(sizes))


@record
class Tolerance:
    """How far an output may be from its golden value: ``atol + rtol * |golden|``.

    ``exact_atol`` takes the place of ``atol`` where a backend computes in exact arithmetic.
    """

    atol: float
    rtol: float
    exact_atol: Optional[float] = None

    def to_dict(self) -> Dict[str, float]:
        """As ``package.json`` holds it."""
        table = {"atol": self.atol, "rtol": self.rtol}
        return table if self.exact_atol is None else {**table, "exact_atol": self.exact_atol}

    def on(self, exact: bool) -> Tolerance:
        """What holds on a backend that computes in exact arithmetic, or on one that does not."""
        return replace(self, atol=self.exact_atol) if exact and self.exact_atol is not None else self


@record
class Agreement:
    """How outputs compare with golden ones: ``rows``, bool[n], the same answer; each output's largest difference."""

    rows: NDArray[np.bool_]
    furthest: Mapping[str, float]


def block_rows(tensors: Iterable[Tensor], most: int) -> int:
    """How many samples are run at a time, at most ``most``: their inputs and outputs must not fill the memory."""
    return max(1, min(most, BLOCK_BYTES // max(1, sum(tensor.row_bytes for tensor in tensors))))


def count_of(arrays: Arrays) -> int:
    """The number of samples in ``arrays``."""
    return len(next(iter(arrays.values())))


def samples_of(arrays: Arrays) -> int:
    """The number of samples that were given in ``arrays``, without those that fill up a fixed batch size."""
    return arrays.samples if isinstance(arrays, Filled) else count_of(arrays)


def rows_of(arrays: Arrays, rows: Union[slice, Sequence[int], Array]) -> Dict[str, Array]:
    """Some rows of each array: a slice, or numbers."""
    return {name: array[rows] for name, array in arrays.items()}


def joined(parts: Sequence[Arrays]) -> Dict[str, Array]:
    """The rows of all ``parts``; dimensions that differ between them are filled with zeros behind their ends."""
    return {name: _stacked([part[name] for part in parts]) for name in parts[0]}


def only_array(given: object, name: str) -> object:
    """The array of the one input ``name`` where ``given`` is arrays by name; ``given`` itself otherwise."""
    return given[name] if isinstance(given, Mapping) and list(given) == [name] else given


def digests_of(samples: Iterable[Array]) -> NDArray[np.uint64]:
    """Per sample the first 8 bytes of the SHA-256 of its bytes, read as little-endian: uint64[n]."""
    heads = b"".join(sha256(sample.tobytes())[:8] for sample in samples)
    return np.frombuffer(heads, "<u8").astype(np.uint64)


def within(outputs: Arrays, golden: Arrays, tolerances: Mapping[str, Tolerance]) -> Agreement:
    """Which rows are within every output's tolerance. NaN is not close to anything."""
    rows = np.ones(count_of(golden), bool)
    furthest: Dict[str, float] = {}
    for name, wanted in golden.items():
        count = len(wanted)
        both = _stacked([wanted, outputs[name]])  # of one shape, however long the two were
        wanted, output = both[:count], both[count:]
        if wanted.dtype.kind != "f":  # 1 - 2 of unsigned numbers is 255
            wanted, output = wanted.astype(np.float64), output.astype(np.float64)
        difference = np.abs(output - wanted)
        allowed = tolerances[name].atol + tolerances[name].rtol * np.abs(wanted)
        rows &= (difference <= allowed).reshape(count, -1).all(axis=1)
        furthest[name] = float(difference.max(initial=0.0))
    return Agreement(rows, furthest)


def _stacked(arrays: Sequence[Array]) -> Array:
    if len(arrays) == 1:
        return arrays[0]
    sizes = np.max([array.shape[1:] for array in arrays], axis=0, initial=0)
    wide = [np.pad(a, [(0, 0), *((0, int(n) - m) for n, m in zip(sizes, a.shape[1:]))]) for a in arrays]
    return np.concatenate(wide)
