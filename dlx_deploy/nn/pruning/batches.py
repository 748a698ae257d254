"""Batches that a network is followed, counted and compared on: images of a shape, or tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlx_deploy.nn.models.inputs import TokenInput

__all__ = ["Reads", "batch_size", "noise", "one", "plain", "several"]

Reads = Sequence[int] | TokenInput
"""What a network reads: the shape of an image batch [N, C, H, W], or token sequences."""

_SEED = 20240229
_TEXTS = 2


def batch_size(reads: Reads) -> int:
    """How many samples ``plain`` has."""
    return _TEXTS if isinstance(reads, TokenInput) else reads[0]


def several(reads: Reads) -> Reads:
    """``reads`` with two samples or more: of one value batch normalisation has no statistics."""
    return reads if isinstance(reads, TokenInput) else (max(reads[0], 2), *reads[1:])


def plain(reads: Reads, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images of zeros; full sequences of tokens, which are int64 whatever ``dtype``."""
    return reads.example(_TEXTS) if isinstance(reads, TokenInput) else torch.zeros(*reads, dtype=dtype)


def one(reads: Reads) -> Tensor:
    """A batch of one."""
    return reads.example(1) if isinstance(reads, TokenInput) else torch.zeros(1, *reads[1:])


def noise(reads: Reads, dtype: torch.dtype) -> Tensor:
    """Random values, the same ones every time; of texts some are padded."""
    if isinstance(reads, TokenInput):
        return reads.drawn(2 * _TEXTS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return torch.randn(*reads, dtype=dtype)
