"""What a task or a method adds to the training loop: the network prepared, weights projected, a metric of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from dlx_deploy.nn.models.outputs import Answer

__all__ = ["Hooks", "Metric", "Targets"]


Targets = npt.NDArray[np.integer[Any] | np.floating[Any]]
"""Numbers [N, ...] of any width, as the data's header says: what a network learns to answer."""


class Metric(Protocol):
    """How good answers are: totals that add up over batches and processes, and one number of them, higher is better."""

    @property
    def name(self) -> str:
        """In metrics: ``validation_NAME``."""
        ...

    @property
    def title(self) -> str:
        """For people."""
        ...

    def total(self, outputs: Answer, targets: Targets) -> npt.NDArray[np.float64]:
        """float64[...], always of the same shape: what ``outputs`` [N, ...] for ``targets`` [N, ...] add."""
        ...

    def score(self, total: npt.NDArray[np.float64], count: float) -> float:
        """0..1, of the summed totals of ``count`` samples."""
        ...


def _unchanged(model: nn.Module) -> nn.Module:
    return model


def _nothing(model: nn.Module, step: int) -> None:
    return None


@dataclass(frozen=True)
class Hooks:
    """``metric``: what the validation split is judged by, a task's own where a stage trains.
    ``prepare``: the network as it is trained (observers and fake quantization put in, say), in place or another one
    that shares its parameters; called once, before the first epoch and before a checkpoint is loaded.
    ``after_update``: called with the trained network after each update, before weights are averaged (a projection onto
    a sparsity pattern, say); the number is that of the schedule, which counts each epoch as long as the first.
    """

    metric: Metric
    prepare: Callable[[nn.Module], nn.Module] = _unchanged
    after_update: Callable[[nn.Module, int], None] = _nothing
