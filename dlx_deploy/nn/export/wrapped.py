"""A network behind its preprocessing, as it is traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlx_deploy.graph.passes.names import WRAPPED

__all__ = ["WrappedImages", "WrappedTokens"]

Values = NDArray[np.float32]


class WrappedImages(nn.Module):
    """uint8[N, H, W, C] → the network's answer to ``image * scale + shift``, float32[N, C, H, W]; both float32[C]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, scale: Values, shift: Values) -> None:
        super().__init__()
        self.add_module(WRAPPED, model)
        self.register_buffer("scale", torch.from_numpy(scale).reshape(-1, 1, 1))
        self.register_buffer("shift", torch.from_numpy(shift).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Any:
        """The answer, as the network gives it."""
        # Without .contiguous() the strides stay channels-last, and adaptive pooling is traced into index arithmetic.
        planes = images.to(torch.float32).permute(0, 3, 1, 2).contiguous()  # (N, C, H, W)
        return self.get_submodule(WRAPPED)(planes * self.scale + self.shift)


class WrappedTokens(nn.Module):
    """int32[N, L] → the network's answer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.add_module(WRAPPED, model)

    def forward(self, tokens: Tensor) -> Any:
        """The answer, as the network gives it."""
        return self.get_submodule(WRAPPED)(tokens)
