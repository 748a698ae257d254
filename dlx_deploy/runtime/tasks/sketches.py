"""Answers made small enough to travel: sums of an output with signs, whose squared distances are those of the outputs.

An output of up to ``SIZE`` values is its own sketch. A larger one is summed into ``SIZE`` places, each value with a
sign that a hash of its place gives (the count sketch of Charikar, Chen and Farach-Colton, Theoretical Computer Science
312:3, 2004): a difference has the same squared length in expectation, whatever it looks like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Sequence, Tuple

import numpy as np

from .arrays import Arrays, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..untyped import Array

__all__ = ["SIZE", "hashed", "sketch_tensors", "sketched"]

SIZE = 64
"""Values of a sketch: the squared length of a difference is off by a factor of 1 ± 0.18 for one sample (standard
deviation), and by a hundredth on hundreds of them."""


def sketch_tensors(tensors: Sequence[Tensor]) -> Tuple[Tensor, ...]:
    """The sketches of a model's outputs: of those in floating point whose size is known."""
    small = []
    for tensor in tensors:
        sizes = [n for n in tensor.sizes if n is not None]
        if len(sizes) == len(tensor.sizes) and np.dtype(tensor.dtype).kind == "f":
            small.append(Tensor(tensor.name, "float32", (min(_product(sizes), SIZE),)))
    return tuple(small)


def sketched(outputs: Arrays, tensors: Sequence[Tensor]) -> Dict[str, NDArray[np.float32]]:
    """The sketches float32[n, size] of ``outputs``, as ``sketch_tensors(tensors)`` says."""
    return {tensor.name: _sketch(outputs[tensor.name], tensor) for tensor in sketch_tensors(tensors)}


def hashed(count: int) -> NDArray[np.uint32]:
    """A number for each of 0 to ``count - 1``: the finaliser of MurmurHash3, uint32[count]."""
    x = np.arange(count, dtype=np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


def _sketch(output: Array, tensor: Tensor) -> NDArray[np.float32]:
    flat = output.reshape(len(output), -1)
    (size,) = tensor.sizes
    if flat.shape[1] == size:
        return np.ascontiguousarray(flat, np.float32)
    count = flat.shape[1]
    signs = 1.0 - 2.0 * (hashed(count) & 1)  # float64
    padded = np.zeros(-(-count // SIZE) * SIZE)
    rows = np.empty((len(flat), SIZE), np.float32)
    for row, values in zip(rows, flat):  # Python 3.8; one at a time: masks are megabytes each
        padded[:count] = signs * values
        row[:] = padded.reshape(-1, SIZE).sum(axis=0)
    return rows
