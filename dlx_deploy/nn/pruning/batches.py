"""Batches that a network is followed, counted and compared on: images of a shape, or tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlx_deploy.nn.models.inputs import InputSpec

__all__ = ["Reads", "batch_size", "noise", "one", "plain", "several"]

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
