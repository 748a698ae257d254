"""How many heads an attention has: what modules keep of it beside their weights, by usual names."""

from __future__ import annotations

from torch import nn

__all__ = ["head_count", "set_heads"]

_HEADS = ("num_attention_heads", "num_heads", "n_heads", "heads", "n_head", "nhead")
_WIDTHS = ("all_head_size", "attn_dim", "inner_dim")
"""Attributes that hold the width of all heads together, where a view needs it."""


def head_count(module: nn.Module) -> int | None:
    """How many heads ``module`` says that it has; ``None``: it does not say."""
    counts = [count for name in _HEADS if type(count := vars(module).get(name)) is int]
    return counts[0] if counts and counts[0] > 0 else None


def set_heads(module: nn.Module, heads: int) -> None:
    """``module``, whose layers have ``heads`` heads now, says so; one that says nothing of heads is left as it is."""
    before = head_count(module)
    if before is None:
        return
    for name in _HEADS:
        if vars(module).get(name) == before:
            setattr(module, name, heads)
    for name in _WIDTHS:
        width = vars(module).get(name)
        if type(width) is int and width % before == 0:
            setattr(module, name, width // before * heads)
