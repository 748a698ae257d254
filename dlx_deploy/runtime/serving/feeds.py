"""Several callers' arrays as one batch: which may be run together, and how those of different lengths are."""

from __future__ import annotations

from typing import Callable, Dict, Iterable, Optional, Sequence

import numpy as np

from ..errors import InputError
from ..tasks.arrays import Arrays, Tensor, count_of, joined
from ..tasks.task import Task
from ..untyped import Array
from ..words import shortened

__all__ = ["Join", "Joiner", "check_feeds"]

Join = Callable[[Sequence[Arrays]], Dict[str, Array]]


def check_feeds(task: Task, feeds: Arrays) -> None:
    """Refuses arrays that are not the inputs of ``task``: together with others they would harm those.

    Raises:
        InputError: a name is missing or unknown; another dtype or shape; no samples, or not as many in each.
    """
    tensors = task.inputs.tensors
    unknown = [name for name in feeds if name not in [tensor.name for tensor in tensors]]
    if unknown:
        raise InputError(
            f"input {shortened(unknown[0])} is none of the model's; must be {', '.join(one.name for one in tensors)}"
        )
    counts = set()
    for tensor in tensors:
        array = feeds.get(tensor.name)
        if not isinstance(array, np.ndarray) or array.dtype != np.dtype(tensor.dtype) or not tensor.fits(array.shape):
            raise InputError(f"input {tensor.name} is {_kind(array)}; must be {_wanted(tensor)}")
        counts.add(len(array))
    if len(counts) > 1 or counts == {0}:
        raise InputError(f"the inputs hold {_listed(counts)} samples; must be one number in all, and at least 1")


class Joiner:
    """Which of a task's arrays may be one batch, and how."""

    def __init__(self, task: Task) -> None:
        self._trim = task.inputs.trim
        self._join: Optional[Join] = getattr(task.inputs, "join", None)
        self._is_even = _all_known(task.inputs.tensors)
        # Of an output that is as long as its inputs no caller could tell which part is its own.
        self._pads = self._join is not None and _all_known(task.outputs.tensors)

    def is_joinable(self, one: Arrays, other: Arrays) -> bool:
        """Whether the two may be one batch: they are of one size, or are padded to one."""
        return self._is_even or self._pads or all(one[name].shape[1:] == other[name].shape[1:] for name in one)

    def join(self, parts: Sequence[Arrays]) -> Arrays:
        """``parts`` as one batch; one alone as it is."""
        if len(parts) == 1:
            return parts[0]
        if self._is_even or self._join is None:
            return joined(parts)
        return self._join([self._trim(part) for part in parts])

    def turns(self, golden: Arrays, size: int) -> Array:
        """The numbers of ``size`` golden samples, each in turn."""
        return np.arange(size) % count_of(golden)


def _all_known(tensors: Sequence[Tensor]) -> bool:
    return all(None not in tensor.sizes for tensor in tensors)


def _kind(array: object) -> str:
    return f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"


def _wanted(tensor: Tensor) -> str:
    return f"{tensor.dtype}[{', '.join(map(str, ('N', *tensor.dims)))}]"


def _listed(counts: Iterable[int]) -> str:
    return " and ".join(map(str, sorted(counts)))
