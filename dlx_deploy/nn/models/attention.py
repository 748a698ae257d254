"""Attention and feed-forward layers whose sizes are those of their ``nn.Linear`` layers, so that pruning only resizes.

``mask`` is bool[N, L] everywhere, true where a token is real; other keys never count.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["KINDS", "Attention", "FeedForward", "GatedFeedForward", "share_of_each"]

KINDS = ("softmax", "linear")
"""The kinds of attention: quadratic and linear in the length."""

# Where a key is masked. exp of it is 0 in float32, float16 holds it, and unlike -inf a row of it alone gives no NaN.
_MASKED = -1e4
_EPSILON = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention, float[N, L, width] to float[N, L, width].

    ``softmax`` is that of Vaswani et al. 2017. ``linear`` is that of Katharopoulos et al. 2020 with elu(x) + 1 as
    feature map: time and memory grow with L, not with L squared. There are as many heads as ``query`` has room for.
    """

    def __init__(
        self, width: int, heads: int, head_width: int, *, kind: str = "softmax", dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.head_width, self.kind, self.dropout = head_width, kind, dropout
        self.query = nn.Linear(width, heads * head_width, bias)
        self.key = nn.Linear(width, heads * head_width, bias)
        self.value = nn.Linear(width, heads * head_width, bias)
        self.out = nn.Linear(heads * head_width, width, bias)

    @property
    def heads(self) -> int:
        """The number of heads, as pruning left it."""
        return self.query.out_features // self.head_width

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """float[N, L, width] from ``x`` of that shape and ``mask``."""
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))  # [N, H, L, D]
        mixed = self._linear(query, key, value, mask) if self.kind == "linear" else self._soft(query, key, value, mask)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:  # [N, L, H * D] -> [N, H, L, D]
        heads: Tensor = x.unflatten(-1, (self.heads, self.head_width))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2)

    def _soft(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        # A boolean mask would be exported with IsNaN and Where around every softmax.
        bias = (~mask)[:, None, None].to(query.dtype) * _MASKED  # [N, 1, 1, L]
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)

    def _linear(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        query = F.elu(query) + 1
        key = (F.elu(key) + 1) * share_of_each(mask, key.dtype)[:, None, :, None]
        summary = key.transpose(-1, -2) @ value  # [N, H, D, D]
        # Products and sums, not a matmul, which autocast would do in half precision.
        norm = (query.float() * key.float().sum(2, keepdim=True)).sum(-1, keepdim=True)  # [N, H, L, 1]
        return (query @ summary) / (norm + _EPSILON).to(value.dtype)


class FeedForward(nn.Module):
    """Two layers with a GELU between them, float[N, L, width] to float[N, L, width]."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """float[N, L, width] from ``x`` of that shape."""
        out: Tensor = self.down(self.dropout(F.gelu(self.up(x))))
        return out


class GatedFeedForward(nn.Module):
    """GEGLU (Shazeer 2020): a linear layer gated by the GELU of another, no biases, float[N, L, width] to the same."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """float[N, L, width] from ``x`` of that shape."""
        out: Tensor = self.down(self.dropout(F.gelu(self.gate(x)) * self.up(x)))
        return out


def share_of_each(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights of an average over the real tokens of ``mask``: [N, L] of ``dtype``, zeros where no token is real.

    Averages instead of sums keep long sequences within float16.
    """
    real = mask.to(torch.float32)
    return (real / real.sum(1, keepdim=True).clamp(min=1)).to(dtype)
