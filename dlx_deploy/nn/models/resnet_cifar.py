"""The ResNets for 32 x 32 images of He et al. 2015, section 4.2: three stages of 16, 32 and 64 channels.

Depth 6n + 2 with n basic blocks per stage. ``shortcut = "B"`` projects with a 1 x 1 convolution where the shape
changes; ``"A"`` is the paper's parameter-free subsampling with zero-padded channels, under the parameter names that
the common public checkpoints use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.arguments import refuse_unknown
from dlx_deploy.nn.models.inputs import ImageInput

__all__ = ["DEPTHS", "CifarResNet", "build_cifar_resnet"]

DEPTHS = {f"resnet{6 * n + 2}": n for n in (1, 3, 5, 7, 9, 18)}
"""Model name → basic blocks per stage. torchvision has no network of these names."""
DEFAULTS: dict[str, Any] = {"width": 1.0, "shortcut": "B"}
"""The arguments: every stage ``width`` times as wide as the paper's, and its ``shortcut``, "A" or "B"."""


class PadShortcut(nn.Module):
    """Every second pixel, and zero channels on both sides (option A): no parameters."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.before = added // 2
        self.after = added - added // 2

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, C + added, ceil(H/2), ceil(W/2)]
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Sequential()
        elif shortcut == "A":
            self.shortcut = PadShortcut(outputs - inputs)
        else:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """Logits [N, classes] from images [N, channels, H, W]; any H and W."""

    def __init__(self, blocks: int, widths: tuple[int, int, int], channels: int, classes: int, shortcut: str) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(channels, first, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = _stage(first, first, blocks, 1, shortcut)
        self.layer2 = _stage(first, second, blocks, 2, shortcut)
        self.layer3 = _stage(second, third, blocks, 2, shortcut)
        self.linear = nn.Linear(third, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, classes]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def build_cifar_resnet(name: str, arguments: Mapping[str, Any], classes: int, spec: ImageInput) -> CifarResNet:
    """The network ``name`` of ``DEPTHS``; its arguments are those of ``DEFAULTS``.

    Raises:
        ConfigError: an unknown argument, ``width`` leaves no channel, or ``shortcut`` is neither "A" nor "B".
    """
    refuse_unknown(name, arguments, DEFAULTS)
    given = {**DEFAULTS, **arguments}
    width, shortcut = given["width"], given["shortcut"]
    if isinstance(width, bool) or not isinstance(width, int | float) or not 1 / 16 <= width <= 64:
        raise ConfigError(f"{name}: argument width is {width!r}; must be a number from 0.0625 to 64")
    if shortcut not in ("A", "B"):
        raise ConfigError(f"{name}: argument shortcut is {shortcut!r}; must be 'A' (padding) or 'B' (projection)")
    first, second, third = (max(1, round(c * width)) for c in (16, 32, 64))
    return CifarResNet(DEPTHS[name], (first, second, third), spec.channels, classes, shortcut)


def _stage(inputs: int, outputs: int, blocks: int, stride: int, shortcut: str) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)))
