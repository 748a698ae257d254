"""A small U-Net (Ronneberger, Fischer and Brox 2015) for small images: a logit of each class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.arguments import refuse_unknown
from dlx_deploy.nn.models.inputs import ImageInput

__all__ = ["UNET_DEFAULTS", "UNet", "build_unet"]

UNET_DEFAULTS: dict[str, Any] = {"width": 16, "depth": 3}


class _Block(nn.Module):
    """Two 3 x 3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class UNet(nn.Module):
    """Logits [N, classes, H, W] from images [N, channels, H, W], H and W multiples of ``2 ** depth``.

    Each step down halves the image and doubles the channels; each step up takes the nearest pixel, then a convolution
    over it and the map of that size from the way down.
    """

    def __init__(self, channels: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width << level for level in range(depth + 1)]
        self.down = nn.ModuleList(_Block(a, b) for a, b in zip([channels, *widths], widths, strict=False))
        self.up = nn.ModuleList(_Block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.head = nn.Conv2d(width, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, classes, H, W]."""
        maps: list[Tensor] = []
        for level, block in enumerate(self.down):
            maps.append(block(F.max_pool2d(maps[-1], 2) if level else x))
        x = maps.pop()
        for block in self.up:
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), maps.pop()], dim=1))
        logits: Tensor = self.head(x)
        return logits


def build_unet(model: str, arguments: Mapping[str, Any], classes: int, spec: ImageInput) -> UNet:
    """The U-Net for images of ``spec``; ``width``: channels at full size, ``depth``: how often the image is halved.

    Raises:
        ConfigError: an argument is unknown or no such number, or the image cannot be halved so often.
    """
    refuse_unknown(model, arguments, list(UNET_DEFAULTS))
    values = {**UNET_DEFAULTS, **arguments}
    for name, most in (("width", 512), ("depth", 6)):
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ConfigError(f"{model}: argument {name} is {value!r}; must be a whole number from 1 to {most}")
    step = 1 << values["depth"]
    if spec.height % step or spec.width % step:
        raise ConfigError(
            f"{model}: images are {spec.height} x {spec.width}, and depth {values['depth']} halves them so often; both "
            f"sizes must be multiples of {step}: set data.height and data.width, or a smaller depth"
        )
    return UNet(spec.channels, classes, values["width"], values["depth"])
