"""Fake quantization whose scales learn: LSQ (Esser et al. 2020, "Learned Step Size Quantization", arXiv 1902.08153).

A tensor is rounded to the integers of its scale and made real again. Going back, rounding is passed over as if it were
not there, what was clipped gets no gradient, and the scale gets that of equation 3 of the paper.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dlx_deploy.graph.quantization.scheme import LARGEST_HALF_SCALE, SMALLEST_HALF_SCALE

__all__ = ["FakeQuantizer"]

LEAST, MOST = 1 / 64, 64.0
"""Of what a scale was at first: one that runs away, or through 0, would take its tensor with it."""


class FakeQuantizer(nn.Module):
    """Rounds a tensor to ``scale * q``, q an integer from ``low`` to ``high`` (counted from the zero point).

    ``start``: float32, the scale at first, one or one for each channel along ``axis``. What learns is the ``ratio`` to
    it, so that optimizers that step by a length and those that step by a gradient both move a scale by a share of
    itself; the gradient is scaled to what the paper gives the scale itself. ``half``: only scales that float16 holds.
    """

    start: Tensor

    def __init__(self, start: Tensor, ends: tuple[int, int], axis: int | None = None, half: bool = False) -> None:
        super().__init__()
        self.low, self.high = ends
        self.axis, self._in_half = axis, half
        self.register_buffer("start", start)
        self.ratio = nn.Parameter(torch.ones_like(start))

    def scale(self) -> Tensor:
        """float32, the shape of ``start``: what a graph holds, and what is computed with."""
        scale = self.start * self.ratio
        if not self._in_half:
            return scale
        held = scale.clamp(SMALLEST_HALF_SCALE, LARGEST_HALF_SCALE).half().float()
        held = torch.where(scale > LARGEST_HALF_SCALE, scale, held)
        return scale + (held - scale).detach() if scale.requires_grad else held

    def forward(self, x: Tensor) -> Tensor:
        """float32, the shape of ``x``."""
        x = x.float()
        scale = self._spread(self.scale(), x)
        if not torch.is_grad_enabled():
            return self._rounded(x, scale) * scale
        count = (x.numel() if self.axis is None else x.numel() // x.shape[self.axis]) / self._rows(x)
        factor = (count * max(self.high, -self.low)) ** -0.5 / self._spread(self.start, x).square()
        rounded: Tensor = _Rounding.apply(x, scale, (self.low, self.high), factor)
        return rounded

    def integers(self, x: Tensor) -> Tensor:
        """float32, the shape of ``x``: the integers alone."""
        return self._rounded(x.float(), self._spread(self.scale(), x))

    def project(self) -> None:
        """Bring ratios back between their limits."""
        with torch.no_grad():
            self.ratio.clamp_(LEAST, MOST)

    def _rounded(self, x: Tensor, scale: Tensor) -> Tensor:
        return (x / scale).round().clamp(self.low, self.high)

    def _spread(self, scale: Tensor, x: Tensor) -> Tensor:
        return scale if self.axis is None else scale.view([-1 if i == self.axis else 1 for i in range(x.ndim)])

    def _rows(self, x: Tensor) -> int:
        """Of an activation the samples, which the paper does not count; weights have none."""
        return len(x) if self.axis is None and x.ndim else 1


class _Rounding(torch.autograd.Function):
    """``x`` rounded and clipped in units of ``scale``; the scale's gradient is multiplied by ``factor``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, ends: tuple[int, int], factor: Tensor) -> Tensor:
        steps = x / scale
        ctx.save_for_backward(steps, factor)
        ctx.ends = ends
        return steps.round().clamp_(*ends) * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        steps, factor = ctx.saved_tensors
        low, high = ctx.ends
        inside = (steps >= low) & (steps <= high)
        slope = steps.round().clamp_(low, high)
        slope = torch.where(inside, slope - steps, slope)
        by_scale = (gradient * slope).sum_to_size(factor.shape) * factor
        return gradient * inside, by_scale, None, None
