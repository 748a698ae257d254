"""Encoders that classify token sequences: the plain transformer, and one with newer parts that is cheaper to run.

Both read tokens int32 or int64 [N, L], ignore padding, average what they made of the real tokens, and give logits
[N, classes]. The hidden width of a feed-forward layer is ``feed_forward`` times ``width``, to the nearest 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.arguments import refuse_unknown
from dlx_deploy.nn.models.attention import KINDS, Attention, FeedForward, GatedFeedForward, share_of_each
from dlx_deploy.nn.models.inputs import TokenInput

__all__ = ["SEQUENCE_DEFAULTS", "EncoderLayer", "SequenceClassifier", "build_sequence_model"]

SEQUENCE_DEFAULTS: dict[str, dict[str, Any]] = {
    "transformer": {
        "depth": 4,
        "heads": 4,
        "width": 128,
        "feed_forward": 4.0,
        "dropout": 0.1,
        "norm": "pre",
        "positions": "sinusoidal",
    },
    # 8/3 and two layers in have as many weights as 4 and one.
    "efficient_transformer": {
        "depth": 4,
        "heads": 4,
        "width": 128,
        "feed_forward": 2.67,
        "dropout": 0.1,
        "attention": "softmax",
        "positions": "sinusoidal",
    },
}
"""Model name → its arguments and their defaults."""

_CHOICES = {"norm": ("pre", "post"), "positions": ("sinusoidal", "learned"), "attention": KINDS}


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each with a residual sum; ``pre`` normalises what goes in, else what comes out."""

    def __init__(
        self, attention: Attention, feed_forward: nn.Module, norm: Callable[[], nn.Module], dropout: float, pre: bool
    ) -> None:
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.norm1, self.norm2 = norm(), norm()
        self.dropout = nn.Dropout(dropout)
        self.pre = pre

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """float[N, L, width] from ``x`` of that shape and ``mask`` bool[N, L], true where a token is real."""
        if self.pre:
            x = x + self.dropout(self.attention(self.norm1(x), mask))
            summed: Tensor = x + self.dropout(self.feed_forward(self.norm2(x)))
            return summed
        x = self.norm1(x + self.dropout(self.attention(x, mask)))
        normed: Tensor = self.norm2(x + self.dropout(self.feed_forward(x)))
        return normed


class SequenceClassifier(nn.Module):
    """Logits [N, classes] from tokens int32 or int64 [N, L], L at most ``spec.max_length``; padding does not count."""

    def __init__(
        self, layers: list[EncoderLayer], norm: nn.Module, classes: int, spec: TokenInput, arguments: Mapping[str, Any]
    ) -> None:
        super().__init__()
        width = arguments["width"]
        self.max_length, self.pad_id = spec.max_length, spec.pad_id
        self.embedding = nn.Embedding(spec.vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        table = _sinusoids(spec.max_length, width)
        if arguments["positions"] == "learned":
            self.positions = nn.Parameter(table)
        else:
            self.register_buffer("positions", table, persistent=False)
        self.dropout = nn.Dropout(arguments["dropout"])
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.head = nn.Linear(width, classes)

    def encode(self, tokens: Tensor) -> Tensor:
        """The encoder's output, float[N, L, width]; at padding it means nothing.

        Raises:
            ValueError: more tokens than ``max_length``.
        """
        length = tokens.shape[1]
        # While a graph is traced the length may be a symbol, whose bounds the caller states.
        if not torch.compiler.is_compiling() and length > self.max_length:
            raise ValueError(f"tokens are {list(tokens.shape)}; at most {self.max_length} a sequence: truncate them")
        mask = tokens != self.pad_id  # [N, L]
        x = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim) + self.positions[:length]
        x = self.dropout(x)  # [N, L, width]
        for layer in self.layers:
            x = layer(x, mask)
        encoded: Tensor = self.norm(x)
        return encoded

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits float[N, classes] of ``tokens`` [N, L]."""
        encoded = self.encode(tokens)
        share = share_of_each(tokens != self.pad_id, encoded.dtype)
        logits: Tensor = self.head((encoded * share[:, :, None]).sum(1))
        return logits


def build_sequence_model(name: str, arguments: Mapping[str, Any], classes: int, spec: TokenInput) -> SequenceClassifier:
    """The untrained network ``name`` of ``SEQUENCE_DEFAULTS`` for tokens [N, L], with logits [N, classes].

    ``transformer`` is the encoder of Vaswani et al. 2017 with GELU, normalised before or after each layer.
    ``efficient_transformer`` has RMSNorm before each layer, gated feed-forward layers (Shazeer 2020), no biases, and
    softmax or linear attention (Katharopoulos et al. 2020). Learned positions start as the sinusoids.

    Raises:
        ConfigError: an unknown name or argument, one out of range, or a width that the heads do not divide.
    """
    if name not in SEQUENCE_DEFAULTS:
        raise ConfigError(f"unknown sequence model {name!r}; {nearest(name, list(SEQUENCE_DEFAULTS))}")
    a = _checked(name, arguments)
    efficient = name == "efficient_transformer"
    pre = a.get("norm", "pre") == "pre"

    def norm() -> nn.Module:
        return nn.RMSNorm(a["width"], eps=1e-6) if efficient else nn.LayerNorm(a["width"])

    layers = [
        EncoderLayer(_attention(a), _feed_forward(a, efficient), norm, a["dropout"], pre) for _ in range(a["depth"])
    ]
    return SequenceClassifier(layers, norm() if pre else nn.Identity(), classes, spec, a)


def _attention(a: Mapping[str, Any]) -> Attention:
    kind = a.get("attention")  # of the efficient one alone, which has no biases
    head_width = a["width"] // a["heads"]
    return Attention(
        a["width"], a["heads"], head_width, kind=kind or "softmax", dropout=a["dropout"], bias=kind is None
    )


def _feed_forward(a: Mapping[str, Any], gated: bool) -> nn.Module:
    hidden = 8 * max(1, round(a["width"] * a["feed_forward"] / 8))
    return (GatedFeedForward if gated else FeedForward)(a["width"], hidden, a["dropout"])


def _checked(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    known = SEQUENCE_DEFAULTS[name]
    refuse_unknown(name, arguments, known)
    for key, value in arguments.items():
        if rule := _broken_rule(key, value):
            raise ConfigError(f"{name}: argument {key} is {value!r}; must be {rule}")
    a = {**known, **arguments}
    if a["width"] % a["heads"]:
        raise ConfigError(f"{name}: argument width is {a['width']}; must be a multiple of heads, {a['heads']}")
    return a


def _broken_rule(key: str, value: object) -> str:
    """The rule that ``value`` breaks; empty where it keeps it."""
    if key in _CHOICES:
        return "" if value in _CHOICES[key] else " or ".join(repr(c) for c in _CHOICES[key])
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key == "dropout":
        return "" if number and 0 <= value < 1 else "a number from 0 to below 1"  # type: ignore[operator]
    if key == "feed_forward":
        return "" if number and 0 < value <= 64 else "a number above 0, at most 64"  # type: ignore[operator]
    return "" if number and isinstance(value, int) and value >= 1 else "a whole number from 1"


def _sinusoids(length: int, width: int) -> Tensor:
    """float32[length, width]: sines in the even columns and cosines in the odd ones (Vaswani et al. 2017, 3.5)."""
    rates = 10_000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates  # [length, ceil(width / 2)]
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)[:, :width].float()
