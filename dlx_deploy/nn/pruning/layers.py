"""What of a layer's weights belongs to which of its channels: one place for who counts, ranks, cuts or fits them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dlx_deploy.nn.pruning.trace import Layer

__all__ = ["Kept", "groups_of", "made_axis", "numel", "parameters", "reads", "width"]

Kept = NDArray[np.bool_]
"""bool[labels + 1]: which labels stay."""


def made_axis(module: nn.Module) -> int:
    """Along which axis of its weights the output channels of a layer lie."""
    return 1 if isinstance(module, nn.ConvTranspose2d) else 0


def groups_of(layer: Layer) -> int:
    """Into how many parts that do not see each other a convolution is cut; 1 for other layers."""
    return layer.module.groups if isinstance(layer.module, nn.Conv2d) else 1


def reads(layer: Layer) -> bool:
    """Whether the layer sums over its inputs: neither a batch normalisation nor a depthwise convolution."""
    if layer.outputs is None or not layer.inputs:
        return False
    return not 1 < groups_of(layer) == len(layer.inputs[0])


def width(layer: Layer) -> int:
    """How many inputs each output reads."""
    return len(layer.inputs[0]) // groups_of(layer)


def numel(layer: Layer, kept: Kept) -> int:
    """How many weights of a layer that makes channels stay."""
    weight = layer.module.weight
    assert isinstance(weight, Tensor)
    assert layer.outputs is not None
    inputs = int(kept[layer.inputs[0][: width(layer)]].sum()) if reads(layer) else 1
    return int(kept[layer.outputs].sum()) * inputs * math.prod(weight.shape[2:])


def parameters(layer: Layer, kept: Kept) -> int:
    """How many parameters of a layer that was used stay, its bias included."""
    made = kept[layer.inputs[0] if layer.outputs is None else layer.outputs]
    own = [getattr(layer.module, role, None) for role in ("weight", "bias")]
    vectors = int(made.sum()) * sum(isinstance(p, nn.Parameter) and p.ndim == 1 for p in own)
    return vectors if layer.outputs is None else vectors + numel(layer, kept)
