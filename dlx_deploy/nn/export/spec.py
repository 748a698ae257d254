"""What an exported classifier looks like from outside: images with their normalisation, or tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import INPUT, MAX_LENGTH, OUTPUT, TOKENS
from dlx_deploy.graph.passes.names import WRAPPED
from dlx_deploy.graph.passes.opset import OLDEST
from dlx_deploy.graph.samples import Arrays, Samples

__all__ = ["NEWEST", "ExportSpec", "Spec", "TextSpec"]

NEWEST = 25
LOGITS = "one tensor of logits, float32[N, classes]"


@dataclass(frozen=True)
class ExportSpec:
    """Images: their size, normalisation (0..1 scale, per channel), opset and batch."""

    inputs: ClassVar[tuple[str, ...]] = (INPUT,)
    outputs: ClassVar[tuple[str, ...]] = (OUTPUT,)
    rule: ClassVar[str] = LOGITS
    advice: ClassVar[str] = ""

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    opset: int = 20
    batch: int | Literal["dynamic"] = "dynamic"

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ConfigError(f"{name} is {values!r}; rule: one value for each of the {self.channels} channels")
        if min(self.std) <= 0:
            raise ConfigError(f"std is {self.std!r}; rule: above 0")
        _check(self.opset, self.batch)

    @property
    def fixed(self) -> int | None:
        """The batch size, if it is fixed."""
        return None if self.batch == "dynamic" else self.batch

    def wrap(self, model: nn.Module) -> nn.Module:
        """``model`` behind its preprocessing: uint8[N, H, W, C], NHWC, 0..255 → logits float32[N, K]."""
        return _Images(model, self)

    def example(self) -> tuple[Tensor, ...]:
        """What the graph is traced with, one for each input."""
        return (torch.zeros(_example_batch(self.batch), self.height, self.width, self.channels, dtype=torch.uint8),)

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        """The dimensions of each input that stay open."""
        return ({0: torch.export.Dim("batch")} if self.batch == "dynamic" else {},)

    def metadata(self) -> dict[str, str]:
        """What else the model's file says."""
        return {}

    def trimmed(self, samples: Samples) -> Samples:
        """``samples`` as they are: images have one size."""
        return samples

    def read(self, samples: Samples) -> tuple[Tensor, ...]:
        """What the bare model reads for stored ``samples``, computed the plain way."""
        planes = (
            ((samples.arrays[INPUT] / 255.0 - np.array(self.mean)) / np.array(self.std))
            .transpose(0, 3, 1, 2)
            .astype(np.float32)
        )
        return (torch.from_numpy(np.ascontiguousarray(planes)),)

    def misshapen(self, outputs: Arrays, rows: int) -> str:
        """What is wrong with the outputs of a batch of ``rows``; empty if nothing."""
        return _no_logits(outputs, rows)


@dataclass(frozen=True)
class TextSpec:
    """Tokens: the longest sequence, the padding, opset, batch and length; a fixed length is always the longest."""

    inputs: ClassVar[tuple[str, ...]] = (TOKENS,)
    outputs: ClassVar[tuple[str, ...]] = (OUTPUT,)
    rule: ClassVar[str] = LOGITS
    advice: ClassVar[str] = (
        ", and however long the longest of them is: mask the padding (tokens != pad_id) wherever tokens are mixed"
    )

    max_length: int
    pad_id: int
    opset: int = 20
    batch: int | Literal["dynamic"] = "dynamic"
    length: Literal["dynamic", "fixed"] = "dynamic"

    def __post_init__(self) -> None:
        _check(self.opset, self.batch)

    @property
    def fixed(self) -> int | None:
        """The batch size, if it is fixed."""
        return None if self.batch == "dynamic" else self.batch

    def wrap(self, model: nn.Module) -> nn.Module:
        """``model``, reading tokens int32[N, L]."""
        return _Tokens(model)

    def example(self) -> tuple[Tensor, ...]:
        """What the graph is traced with, one for each input: no padding at all would be taken for a constant."""
        tokens = torch.full((_example_batch(self.batch), self.max_length), self.pad_id, dtype=torch.int32)
        tokens[:, : max(self.max_length // 2, 1)] = self.pad_id + 1 if self.pad_id == 0 else 0
        return (tokens,)

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        """The dimensions of each input that stay open."""
        dims: dict[int, Any] = {0: torch.export.Dim("batch")} if self.batch == "dynamic" else {}
        return ({**dims, 1: torch.export.Dim("length", max=self.max_length)} if self.length == "dynamic" else dims,)

    def metadata(self) -> dict[str, str]:
        """What else the model's file says."""
        return {MAX_LENGTH: str(self.max_length)} if self.length == "dynamic" else {}

    def trimmed(self, samples: Samples) -> Samples:
        """``samples`` as long as the graph would get them: the longest of them where the length is open."""
        return samples.fitted({TOKENS: (None, self.max_length if self.length == "fixed" else None)})

    def read(self, samples: Samples) -> tuple[Tensor, ...]:
        """What the bare model reads for stored ``samples``."""
        return (torch.from_numpy(np.ascontiguousarray(samples.arrays[TOKENS]).astype(np.int64)),)

    def misshapen(self, outputs: Arrays, rows: int) -> str:
        """What is wrong with the outputs of a batch of ``rows``; empty if nothing."""
        return _no_logits(outputs, rows)


Spec = ExportSpec | TextSpec


class _Images(nn.Module):
    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, spec: ExportSpec) -> None:
        super().__init__()
        self.add_module(WRAPPED, model)
        mean, std = (torch.tensor(v, dtype=torch.float64).reshape(-1, 1, 1) for v in (spec.mean, spec.std))
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("shift", (-mean / std).float())

    def forward(self, images: Tensor) -> Tensor:
        # Without .contiguous() the strides stay channels-last, and adaptive pooling is traced into index arithmetic.
        planes = images.to(torch.float32).permute(0, 3, 1, 2).contiguous()  # (N, C, H, W)
        logits: Tensor = self.get_submodule(WRAPPED)(planes * self.scale + self.shift)  # (N, K)
        return logits


class _Tokens(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.add_module(WRAPPED, model)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.get_submodule(WRAPPED)(tokens)
        return logits


def _no_logits(outputs: Arrays, rows: int) -> str:
    logits = outputs[OUTPUT]
    if logits.ndim == 2 and len(logits) == rows and logits.dtype.kind == "f":
        return ""
    return f"{logits.dtype}{list(logits.shape)} for a batch of {rows}; rule: {LOGITS}"


def _example_batch(batch: int | Literal["dynamic"]) -> int:
    return 2 if batch == "dynamic" else batch  # a batch of 1 would be taken for a constant


def _check(opset: int, batch: int | Literal["dynamic"]) -> None:
    if not OLDEST <= opset <= NEWEST:
        raise ConfigError(f"opset is {opset}; rule: {OLDEST} to {NEWEST}")
    if batch != "dynamic" and batch < 1:
        raise ConfigError(f"batch is {batch!r}; rule: 'dynamic', or 1 or more")
