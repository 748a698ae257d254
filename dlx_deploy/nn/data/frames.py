"""How ``[data]`` says that pictures become what networks read. No heavy library: a plan asks too."""

from __future__ import annotations

import math

from dlx_deploy.config import Data
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.framing import BGR, BILINEAR, CROP, LETTERBOX, RGB, ROUND, SQUASH, Framing

__all__ = ["FRAME_KEYS", "check_frame", "check_scale", "framing_of", "rescaled"]

FRAME_KEYS = (
    "resize", "crop_fraction", "resize_size", "crop_offset", "interpolation", "fill", "color_order", "originals"
)  # fmt: skip
"""The keys of ``[data]`` that say something of image files, beside their size."""
CHANNELS = 3
LEVELS = 255


def framing_of(data: Data) -> Framing:
    """The frame of image files, whose height ``data`` says.

    Raises:
        ConfigError: values that do not fit each other.
    """
    check_frame(data)
    height, width = data.height, data.width or data.height
    box: tuple[int, ...] = data.resize_size * 2 if len(data.resize_size) == 1 else data.resize_size
    if data.crop_fraction:
        box = (math.floor(height / data.crop_fraction), math.floor(width / data.crop_fraction))
    try:
        return Framing(
            height,
            width,
            data.channels or CHANNELS,
            resize=data.resize or (CROP if box else SQUASH),
            box=box,
            interpolation=data.interpolation or BILINEAR,
            fill=data.fill or (0,),
            color_order=data.color_order or RGB,
            crop_offset=data.crop_offset or ROUND,
        )
    except InputError as e:
        raise ConfigError(f"data: {e}; correct data.resize_size, data.height, data.width or data.fill") from e


def check_frame(data: Data) -> None:
    """Refuses keys that contradict each other.

    Raises:
        ConfigError: names them.
    """
    if data.crop_fraction and data.resize_size:
        raise ConfigError(
            f"data.crop_fraction is {data.crop_fraction:g} and data.resize_size {list(data.resize_size)}; both say "
            "what images are resized to: set one of them"
        )
    if data.fill and data.resize != LETTERBOX:
        raise ConfigError(
            f"data.fill is {list(data.fill)} and data.resize {data.resize!r}; only 'letterbox' pads: leave fill out"
        )
    if data.color_order == BGR and data.channels == 1:
        raise ConfigError("data.color_order is 'bgr' and data.channels is 1; grey has no order: leave it out")


def check_scale(data: Data) -> None:
    """Refuses a scale without what it belongs to: what is measured is measured on the 0..1 scale.

    Raises:
        ConfigError: says so.
    """
    if data.scale and not (data.mean and data.std):
        raise ConfigError(
            f"data.scale is {data.scale:g}, and data.mean or data.std is not set; rule: all three, or none to measure "
            "mean and std: mean = [0, 0, 0] and std = [1, 1, 1] leave pixels as scaled"
        )


def rescaled(values: list[float], scale: float) -> list[float]:
    """A mean or standard deviation of pixels times ``scale`` (0: 1/255) as one of pixels on the 0..1 scale."""
    return values if not scale or scale == 1 / LEVELS else [value / (LEVELS * scale) for value in values]
