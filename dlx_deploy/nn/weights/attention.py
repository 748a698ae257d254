"""Torch's own attention in parts that pruning can make smaller: a projection each for queries, keys and values.

``nn.MultiheadAttention`` holds one packed matrix and an embedding width that its heads must fill, so no head can be
taken from it. ``split_attention`` puts ``SplitAttention`` in its place, which answers the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AveragedHeads", "SplitAttention", "operation_by_operation", "split_attention", "why_whole"]

_PARTS = ("q_proj", "k_proj", "v_proj")


class AveragedHeads(nn.Module):
    """float[N, L, S], the average over the heads of weights float[N, H, L, S]: what most callers throw away.

    A module of its own, so that pruning need not hold the heads together for an answer that nobody may read.
    """

    def forward(self, weights: Tensor) -> Tensor:
        """The average over the second axis."""
        return weights.mean(1)


class SplitAttention(nn.Module):
    """What ``nn.MultiheadAttention`` computes, by four linear layers and as many heads as these have room for.

    It takes the same arguments and gives the same answers, and has the attributes that torch's encoder layers read.
    """

    in_proj_bias = None
    """Of torch's encoder layers: do not read packed weights (their fast path does)."""

    def __init__(self, whole: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = whole.embed_dim, whole.num_heads, whole.head_dim
        self.batch_first, self.dropout = whole.batch_first, whole.dropout
        self._qkv_same_embed_dim = whole._qkv_same_embed_dim
        packed, width = whole.in_proj_bias, whole.embed_dim
        weights: list[Tensor] = [whole.q_proj_weight, whole.k_proj_weight, whole.v_proj_weight]
        if whole._qkv_same_embed_dim:
            weights = [_part(whole.in_proj_weight, i, width) for i in range(len(_PARTS))]
        for i, (name, weight) in enumerate(zip(_PARTS, weights, strict=True)):
            self.add_module(name, _linear(weight, None if packed is None else _part(packed, i, width)))
        self.out_proj = whole.out_proj
        self.averaged = AveragedHeads()
        self.train(whole.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The answer float[N, L, E] to ``query`` of that shape, and the weights where they are asked for.

        ``key`` and ``value`` are float[N, S, width of theirs]; places come first where not ``batch_first``, and N may
        be missing. Masks are true, or -inf, where a key does not count: ``key_padding_mask`` [N, S] and ``attn_mask``
        [L, S] or [N * H, L, S]. ``is_causal`` only says what ``attn_mask`` is. The weights are float[N, L, S], or
        [N, H, L, S] if not averaged.
        """
        batched = query.ndim == 3
        sources, axis = [query, key, value], 0 if self.batch_first else 1
        if not batched:
            sources = [source.unsqueeze(axis) for source in sources]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        if not self.batch_first:
            sources = [source.transpose(0, 1) for source in sources]
        queries, keys, values = (
            self._heads(self.get_submodule(name)(source)) for name, source in zip(_PARTS, sources, strict=True)
        )
        mask = self._mask(attn_mask, key_padding_mask, queries)
        mixed, weights = self._mixed(queries, keys, values, mask, need_weights)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = self.averaged(weights)
        out = out if self.batch_first else out.transpose(0, 1)
        return (out, weights) if batched else (out.squeeze(axis), None if weights is None else weights.squeeze(0))

    def _mixed(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """float[N, H, L, D], and the weights where they are needed."""
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout), None
        scores = queries @ keys.transpose(2, 3) / math.sqrt(self.head_dim)
        weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
        return weights @ values, weights

    def _heads(self, x: Tensor) -> Tensor:  # [N, L, H * D] -> [N, H, L, D]
        heads: Tensor = x.unflatten(-1, (self.num_heads, self.head_dim))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2)

    def _mask(self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, like: Tensor) -> Tensor | None:
        """What is added to scores [N, H, L, S]."""
        mask = None
        if attn_mask is not None:
            mask = _added(attn_mask, like)
            mask = mask.view(like.shape[0], self.num_heads, *mask.shape[1:]) if mask.ndim == 3 else mask
        if key_padding_mask is not None:
            padded = _added(key_padding_mask, like)[:, None, None]
            mask = padded if mask is None else mask + padded
        return mask


@contextmanager
def operation_by_operation() -> Iterator[None]:
    """While it lasts, torch's attention is no single fused operation, which nobody can follow or count."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def why_whole(module: nn.Module, model: nn.Module) -> str:
    """Why ``module`` of ``model``, a kind of ``nn.MultiheadAttention``, cannot be split; empty if it can."""
    if type(module) is not nn.MultiheadAttention:
        return f"{type(module).__name__} is a kind of nn.MultiheadAttention of its own"
    if module.bias_k is not None:
        return "nn.MultiheadAttention with add_bias_kv has a key and a value for all heads together"
    if module.add_zero_attn:
        return "nn.MultiheadAttention with add_zero_attn adds a place to all heads together"
    own = {id(parameter) for parameter in module.parameters()}
    places = [name for name, other in model.named_modules(remove_duplicate=False) if other is module]
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in own and not any(name.startswith(f"{place}.") for place in places):
            return f"its weights are those of {name} too"
    return ""


def split_attention(model: nn.Module, names: Iterable[str]) -> None:
    """Put ``SplitAttention`` with the same weights in the place of each of ``names``, wherever else it is used too.

    Raises:
        KeyError: there is no module of that name, or it is no ``nn.MultiheadAttention``.
    """
    for name in names:
        whole = dict(model.named_modules()).get(name)
        if not name or type(whole) is not nn.MultiheadAttention:
            raise KeyError(name)
        _put_in_place(model, whole, SplitAttention(whole))
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(isinstance(m, SplitAttention) for m in module.modules()):
            module.use_nested_tensor = False  # only packed weights can read nested tensors


def _put_in_place(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child is old:
                module._modules[name] = new


def _part(packed: Tensor, i: int, width: int) -> Tensor:
    """One of three parts, one below the other: of queries, keys and values."""
    return nn.Parameter(packed.detach()[i * width : (i + 1) * width].clone(), packed.requires_grad)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), bias.requires_grad)
    return layer


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """``mask`` as what is added to scores."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
