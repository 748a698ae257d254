"""What ``dataset.json`` says, task by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from dlx_deploy.nn.data.dataset import Column, Header
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_inputs import IMAGES
from dlx_deploy.runtime.tasks.text_inputs import TOKENS

__all__ = ["ImageHeader", "TextHeader"]

_Size = Annotated[int, Meta(ge=1)]


class ImageHeader(Header, frozen=True, kw_only=True, tag="image-classification"):
    """Images of one size. ``mean`` and ``std`` are per channel, on the 0..1 scale: ``(x / 255 - mean) / std``.

    ``frame``: how pictures became these images; left out where they were squashed bilinearly, or were no pictures.
    """

    height: _Size
    width: _Size
    channels: _Size
    mean: list[float]
    std: list[float]
    frame: Framing | None = None

    @property
    def framing(self) -> Framing:
        """How a picture became, and on a device becomes, one of these images."""
        return self.frame or Framing(self.height, self.width, self.channels)

    @property
    def inputs(self) -> Mapping[str, Column]:
        """uint8[N, H, W, C], NHWC, 0..255."""
        return {IMAGES: Column("images", "uint8", (self.height, self.width, self.channels))}


class TextHeader(Header, frozen=True, kw_only=True, tag="sequence-classification"):
    """Texts as tokens. With ``truncate`` those of more than ``max_length`` tokens were cut.

    Beside the arrays lie ``SPLIT.texts.json`` (a list of strings) and ``tokenizer.json``.
    """

    vocabulary: _Size
    max_length: _Size
    pad_id: Annotated[int, Meta(ge=0)]
    truncate: bool

    @property
    def inputs(self) -> Mapping[str, Column]:
        """int32[N, L], padded after their ends to the longest of the split."""
        return {TOKENS: Column("tokens", "int32", (None,), self.pad_id)}
