"""Attention of torch's own kind is split before channels are followed, where the network answers the same then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from dlx_deploy.nn.pruning.batches import Reads
from dlx_deploy.nn.pruning.oracle import objection_to
from dlx_deploy.nn.weights.attention import split_attention, why_whole

__all__ = ["Split", "split_what_can_be"]

_ALONE = "it is the whole network"


@dataclass(frozen=True)
class Split:
    """The modules of attention that were split, and why others were not."""

    names: tuple[str, ...]
    left: dict[str, str]

    def among(self, layers: Sequence[str]) -> tuple[str, ...]:
        """The modules that have some of ``layers``."""
        return tuple(name for name in self.names if any(layer.startswith(f"{name}.") for layer in layers))


def split_what_can_be(model: nn.Module, reads: Reads) -> Split:
    """Split each ``nn.MultiheadAttention`` of ``model``, in evaluation mode, where that changes no answer."""
    kinds = {name: module for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)}
    left = {name: why for name, module in kinds.items() if (why := why_whole(module, model) if name else _ALONE)}
    names = [name for name in kinds if name not in left]
    if names and _objection(model, names, reads):
        left |= {name: f"split, {why}" for name in names if (why := _objection(model, [name], reads))}
        names = [name for name in names if name not in left]
    split_attention(model, names)
    return Split(tuple(names), left)


def _objection(model: nn.Module, names: Sequence[str], reads: Reads) -> str:
    return objection_to(lambda changed: split_attention(changed, names), model, reads)
