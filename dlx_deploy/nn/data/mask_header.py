"""What ``dataset.json`` says of images with masks."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from dlx_deploy.nn.data.dataset import Column
from dlx_deploy.nn.data.headers import ImageHeader

__all__ = ["MaskHeader"]


class MaskHeader(ImageHeader, frozen=True, kw_only=True, tag="semantic-segmentation"):
    """Images of one size with a class for each pixel. ``ignore_index``: the value, in the user's own mask files, of
    pixels that count for nothing; here they are 255."""

    MASKS: ClassVar[str] = "masks"

    ignore_index: Annotated[int, Meta(ge=0, le=255)]

    @property
    def targets(self) -> Column:
        """uint8[N, H, W]."""
        return Column(self.MASKS, "uint8", (self.height, self.width), aligned=True)
