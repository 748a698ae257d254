"""Copies of a network: as it is, and in float64, where what float32 rounds away is not lost."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

__all__ = ["copied", "doubled", "exact"]

EXACT = 1e-6
"""Of an output's largest value: what float64 answers to the same question differ by at most."""
SHRUNK = 1e-3
"""Of what float32 answers differ by: as much or more is left in float64 of what is no rounding, of which 2e-9 is."""


def exact(apart: float) -> float:
    """What float64 answers may differ by, where float32's are ``apart`` by rounding (of the largest value).

    Where rounding has grown to the whole answer, nobody knows how much further it would grow: some of float64's is
    left.
    """
    return max(EXACT, SHRUNK * min(apart, 1.0))


def copied(model: nn.Module) -> nn.Module:
    """A deep copy of ``model``: the older hooks leave weights with a gradient's history, and those cannot be copied."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)


def doubled(model: nn.Module) -> nn.Module:
    """A copy of ``model`` that computes in float64, on the CPU and in evaluation mode, from what ``model`` reads.

    It tells two networks, or two orders of summing, that differ from two that are rounded differently. A network that
    makes float32 numbers itself may raise.
    """
    network = copied(model).cpu().double().eval()
    network.register_forward_pre_hook(_in_double)
    return network


def _in_double(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_cast(value) for value in given)


def _cast(value: object) -> object:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
