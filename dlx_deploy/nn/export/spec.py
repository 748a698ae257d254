"""What an exported network looks like from outside: images with their normalisation or tokens in, named outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.foreign.adopt import Border, Front, ImageBorder
from dlx_deploy.graph.foreign.tokens import TokenBorder, TokenFront, refuse_length, token_ends
from dlx_deploy.graph.foreign.usable import layout_of
from dlx_deploy.graph.foreign.wire import Value
from dlx_deploy.graph.model import MAX_LENGTH
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.nn.models.outputs import Outputs, fits, named_tensors, sizes
from dlx_deploy.runtime.tasks.image_inputs import IMAGES
from dlx_deploy.runtime.tasks.text_inputs import TOKENS
from dlx_deploy.targets.opsets import NEWEST, OLDEST

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ExportSpec", "Spec", "TextSpec", "misshapen", "named_outputs"]

_FEW_TOKENS = 4


@dataclass(frozen=True)
class ExportSpec:
    """Images: their size, normalisation (0..1 scale, per channel), what is answered, opset and batch."""

    inputs: ClassVar[tuple[str, ...]] = (IMAGES,)
    texts: ClassVar[bool] = False
    advice: ClassVar[str] = ""

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    outputs: Outputs
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
        """``model`` behind its preprocessing: uint8[N, H, W, C], NHWC, 0..255 → ``outputs``."""
        from dlx_deploy.nn.export.wrapped import WrappedImages

        front = self.front()
        return WrappedImages(model, front.scale, front.shift)

    def example(self) -> tuple[Tensor, ...]:
        """What the graph is traced with, one for each input."""
        import torch

        return (torch.zeros(_example_batch(self.batch), self.height, self.width, self.channels, dtype=torch.uint8),)

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        """The dimensions of each input that stay open."""
        import torch

        return ({0: torch.export.Dim("batch")} if self.batch == "dynamic" else {},)

    def front(self) -> Front:
        """What stands before a network that came as a graph."""
        mean, std = np.array(self.mean), np.array(self.std)
        scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
        return Front(self.height, self.width, self.channels, scale, shift)

    def border(self, inputs: Sequence[Value], path: Path) -> Border:
        """The same, bound to the one of ``inputs`` of the network in ``path``.

        Raises:
            ConfigError: it takes other images.
        """
        (images,), front = inputs, self.front()
        return ImageBorder(front, images, layout_of(images, front.picture, path))

    def noise(self, count: int) -> Samples:
        """``count`` images of noise."""
        shape = (count, self.height, self.width, self.channels)
        return Samples({IMAGES: np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)})

    def metadata(self) -> dict[str, str]:
        """What else the model's file says."""
        return {}

    def trimmed(self, samples: Samples) -> Samples:
        """``samples`` as they are: images have one size."""
        return samples

    def plain(self, samples: Samples) -> NDArray[np.float32]:
        """What the bare model reads for stored ``samples``, float32[N, C, H, W], computed the plain way."""
        scaled = (samples.arrays[IMAGES] / 255.0 - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2).astype(np.float32))

    def read(self, samples: Samples) -> tuple[Tensor, ...]:
        """The same as tensors, one for each input."""
        import torch

        return (torch.from_numpy(self.plain(samples)),)


@dataclass(frozen=True)
class TextSpec:
    """Tokens: the longest sequence, the padding, what is answered, opset, batch and length.

    A fixed length is always the longest.
    """

    inputs: ClassVar[tuple[str, ...]] = (TOKENS,)
    texts: ClassVar[bool] = True
    advice: ClassVar[str] = (
        ", and however long the longest of them is: mask the padding (tokens != pad_id) wherever tokens are mixed"
    )

    max_length: int
    pad_id: int
    outputs: Outputs
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
        from dlx_deploy.nn.export.wrapped import WrappedTokens

        return WrappedTokens(model)

    def example(self) -> tuple[Tensor, ...]:
        """What the graph is traced with, one for each input: no padding at all would be taken for a constant."""
        import torch

        tokens = torch.full((_example_batch(self.batch), self.max_length), self.pad_id, dtype=torch.int32)
        tokens[:, : max(self.max_length // 2, 1)] = self.pad_id + 1 if self.pad_id == 0 else 0
        return (tokens,)

    def dynamic(self) -> tuple[dict[int, Any], ...]:
        """The dimensions of each input that stay open."""
        import torch

        dims: dict[int, Any] = {0: torch.export.Dim("batch")} if self.batch == "dynamic" else {}
        return ({**dims, 1: torch.export.Dim("length", max=self.max_length)} if self.length == "dynamic" else dims,)

    def border(self, inputs: Sequence[Value], path: Path) -> Border:
        """What stands before a network that came as a graph in ``path``, bound to its ``inputs``.

        Raises:
            ConfigError: they are no token ids, mask and types, or of another length.
        """
        front = TokenFront(self.max_length, self.pad_id, self.max_length if self.length == "fixed" else None)
        ends = token_ends(inputs, path)
        refuse_length(ends, front, path)
        return TokenBorder(front, ends)

    def noise(self, count: int) -> Samples:
        """``count`` texts of a few tokens that every vocabulary has, of several lengths."""
        drawn = np.random.default_rng(0)
        tokens = drawn.integers(0, _FEW_TOKENS, (count, self.max_length), dtype=np.int32)
        tokens[tokens == self.pad_id] = _FEW_TOKENS
        ends = drawn.integers(1, self.max_length + 1, (count, 1))
        tokens[np.arange(self.max_length) >= ends] = self.pad_id
        return Samples({TOKENS: tokens}, {TOKENS: self.pad_id})

    def metadata(self) -> dict[str, str]:
        """What else the model's file says."""
        return {MAX_LENGTH: str(self.max_length)} if self.length == "dynamic" else {}

    def trimmed(self, samples: Samples) -> Samples:
        """``samples`` as long as the graph would get them: the longest of them where the length is open."""
        return samples.fitted({TOKENS: (None, self.max_length if self.length == "fixed" else None)})

    def plain(self, samples: Samples) -> NDArray[np.int64]:
        """What the bare model reads for stored ``samples``, int64[N, L]."""
        return np.ascontiguousarray(samples.arrays[TOKENS]).astype(np.int64)

    def read(self, samples: Samples) -> tuple[Tensor, ...]:
        """The same as tensors, one for each input."""
        import torch

        return (torch.from_numpy(self.plain(samples)),)


Spec = ExportSpec | TextSpec


def named_outputs(given: object, outputs: Outputs) -> Arrays:
    """What a network gave, one tensor or a tuple of several, as arrays by name.

    Raises:
        ConfigError: it is something else.
    """
    tensors = named_tensors(given, outputs)
    if tensors is None:
        raise ConfigError(f"the model's output is a {type(given).__name__}; rule: {_rule(outputs)}")
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def misshapen(outputs: Outputs, arrays: Arrays, rows: int) -> str:
    """What is wrong with ``arrays`` as the ``outputs`` of a batch of ``rows``; empty if nothing."""
    for name, dims in outputs.items():
        values = arrays[name]
        if values.dtype != np.float32 or not fits(values.shape, rows, dims):
            return f"{values.dtype}{list(values.shape)} for a batch of {rows}; rule: {_rule(outputs)}"
    return ""


def _rule(outputs: Outputs) -> str:
    several = "a tuple of tensors: " if len(outputs) > 1 else "one tensor of "
    return several + " and ".join(f"{name}, float32{sizes(dims)}" for name, dims in outputs.items())


def _example_batch(batch: int | Literal["dynamic"]) -> int:
    return 2 if batch == "dynamic" else batch  # a batch of 1 would be taken for a constant


def _check(opset: int, batch: int | Literal["dynamic"]) -> None:
    if not OLDEST <= opset <= NEWEST:
        raise ConfigError(f"opset is {opset}; rule: {OLDEST} to {NEWEST}")
    if batch != "dynamic" and batch < 1:
        raise ConfigError(f"batch is {batch!r}; rule: 'dynamic', or 1 or more")
