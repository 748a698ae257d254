"""How many heads an attention has: what modules of timm and transformers keep of it beside their weights."""

from __future__ import annotations

from torch import nn

__all__ = ["head_count", "set_heads"]

_HEADS = ("num_attention_heads", "num_heads", "n_heads")
_WIDTHS = ("all_head_size", "attn_dim", "inner_dim")
"""Attributes that hold the width of all heads together, where a view needs it."""


def head_count(module: nn.Module) -> int | None:
    """How many heads ``module`` says that it has; ``None``: it does not say."""
    counts = [count for name in _HEADS if type(count := getattr(module, name, None)) is int]
    return counts[0] if counts and counts[0] > 0 else None


def set_heads(module: nn.Module, heads: int) -> None:
    """``module``, whose layers have ``heads`` heads now, says so; one that says nothing of heads is left as it is."""
    before = head_count(module)
    if before is None:
        return
    for name in _HEADS:
        if getattr(module, name, None) == before:
            setattr(module, name, heads)
    for name in _WIDTHS:
        width = getattr(module, name, None)
        if type(width) is int and width % before == 0:
            setattr(module, name, width // before * heads)
