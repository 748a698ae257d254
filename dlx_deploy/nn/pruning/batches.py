"""Batches that a network is followed, counted and compared on: images of a shape, or tokens; and some of real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlx_deploy.nn.models.inputs import InputSpec
from dlx_deploy.nn.training.batches import Batch, TrainData

__all__ = ["Reads", "SomeOf", "batch_size", "noise", "one", "plain", "several"]

Reads = Sequence[int] | InputSpec
"""What a network reads: the shape of an image batch [N, C, H, W], or what makes batches of its own."""

_SEED = 20240229
_OWN = 2
"""Samples where no shape says how many."""


def batch_size(reads: Reads) -> int:
    """How many samples ``plain`` has."""
    return reads[0] if isinstance(reads, Sequence) else _OWN


def several(reads: Reads) -> Reads:
    """``reads`` with two samples or more: of one value batch normalisation has no statistics."""
    return (max(reads[0], 2), *reads[1:]) if isinstance(reads, Sequence) else reads


def plain(reads: Reads, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images of zeros; full sequences of tokens, which are int64 whatever ``dtype``."""
    return torch.zeros(*reads, dtype=dtype) if isinstance(reads, Sequence) else reads.example(_OWN)


def one(reads: Reads) -> Tensor:
    """A batch of one."""
    return torch.zeros(1, *reads[1:]) if isinstance(reads, Sequence) else reads.example(1)


def noise(reads: Reads, dtype: torch.dtype) -> Tensor:
    """Random values, the same ones every time; of texts some are padded."""
    if not isinstance(reads, Sequence):
        return reads.drawn(2 * _OWN)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return torch.randn(*reads, dtype=dtype)


@dataclass(frozen=True)
class SomeOf:
    """Batches of at most ``count`` samples of the training split, not augmented: drawn by ``seed``, always the same."""

    data: TrainData
    seed: int
    count: int = 512
    size: int = 16

    def __iter__(self) -> Iterator[Batch]:
        """Each time from the first."""
        drawn = np.random.default_rng(self.seed).permutation(len(self.data.targets))[: self.count]
        for start in range(0, len(drawn), self.size):
            rows = drawn[start : start + self.size]
            inputs = torch.from_numpy(np.ascontiguousarray(self.data.inputs[rows]))
            targets = torch.from_numpy(np.ascontiguousarray(self.data.targets[rows]))
            yield Batch(self.data.feed(inputs), targets, torch.from_numpy(rows))
