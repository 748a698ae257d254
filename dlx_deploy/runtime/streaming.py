"""Samples without an end: read as they come, run a few at a time, each with an answer of its own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Callable, Dict, Iterable, Iterator, List, Optional, Sequence

from .errors import InputError
from .package.rules import MAX_BATCH
from .tasks.arrays import Arrays, count_of, joined, rows_of
from .tasks.task import Inputs
from .untyped import Array

if TYPE_CHECKING:
    from .predictor import Predictor

__all__ = ["check_batch_size", "read_all", "stream_answers"]


def stream_answers(predictor: Predictor, samples: Iterable[object], size: int, bgr: bool) -> Iterator[object]:
    """An answer for each of ``samples``, in their order; at most ``size`` are held and run at a time.

    Raises:
        InputError, BackendMissing, PackageError: as ``Predictor.predict``; answers before the fault have been given.
    """
    remaining = iter(samples)
    while True:
        block = list(itertools.islice(remaining, size))
        if not block:
            return
        outputs = predictor.run(predictor.read_all(block, bgr))
        for i, sample in enumerate(block):
            yield predictor.answers(rows_of(outputs, slice(i, i + 1)), sample)


def read_all(inputs: Inputs, samples: Sequence[object], read: Callable[[object], Dict[str, Array]]) -> Dict[str, Array]:
    """Samples of several kinds (files, pictures, arrays of differing sizes) as one batch, each by ``read``.

    Raises:
        InputError: as ``Inputs.read``, or one of them is several samples.
    """
    if not _alike(inputs):
        return read(list(samples))  # padded to the longest: only their task knows how
    parts: List[Arrays] = []
    for sample in samples:
        part = read(sample)
        if count_of(part) != 1:
            raise InputError(f"a sample holds {count_of(part)} {inputs.noun}; each must be one, with its own answer")
        parts.append(part)
    return joined(parts)


def check_batch_size(batch: Optional[int], own: Optional[int]) -> int:
    """The number of samples that run at a time: ``batch``, or the model's ``own`` fixed size, or one.

    Raises:
        InputError: ``batch`` is out of range.
    """
    if batch is not None and not 1 <= batch <= MAX_BATCH:
        raise InputError(f"batch is {batch}; must be 1 or more, and at most {MAX_BATCH}")
    return batch or own or 1


def _alike(inputs: Inputs) -> bool:
    """Whether every sample has one size, so that each can be read by itself."""
    return all(None not in tensor.sizes for tensor in inputs.tensors)
