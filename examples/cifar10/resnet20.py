"""ResNet-20 for 32 x 32 images (He et al. 2015, section 4.2) with parameter-free shortcuts: the paper's option A.

Parameter names are those of the common public CIFAR-10 checkpoints: ``conv1``, ``bn1``, ``layer1.0.conv1``, …,
``linear``. This file needs torch alone: dlx-deploy copies it into everything that is built from it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ResNet20", "resnet20"]

WIDTHS = (16, 32, 64)  # channels of the three stages
BLOCKS = 3  # per stage: 1 + 3 * 3 * 2 + 1 = 20 layers with weights


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut that has no parameters."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.added = outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:  # [N, inputs, H, W] -> [N, outputs, H / stride, W / stride]
        branch = F.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        return F.relu(branch + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if not self.added:
            return x
        # Every second pixel; half of the new channels, all zero, in front and half behind, as the checkpoints expect.
        front = self.added // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, front, self.added - front))


class ResNet20(nn.Module):
    """Logits [N, num_classes] from normalised images [N, in_channels, H, W]."""

    def __init__(self, num_classes: int, in_channels: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[0])
        self.layer2 = _stage(widths[0], widths[1])
        self.layer3 = _stage(widths[1], widths[2])
        self.linear = nn.Linear(widths[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))  # [N, 16, H, W]
        x = self.layer1(x)
        x = self.layer2(x)  # [N, 32, H / 2, W / 2]
        x = self.layer3(x)  # [N, 64, H / 4, W / 4]
        x = F.adaptive_avg_pool2d(x, 1)
        logits: Tensor = self.linear(torch.flatten(x, 1))
        return logits


def resnet20(num_classes: int, in_channels: int = 3, width: float = 1.0) -> ResNet20:
    """The network, untrained. ``width`` scales the 16, 32 and 64 channels: 0.5 makes a student a quarter as large.

    Raises:
        ValueError: ``width`` leaves a stage without channels.
    """
    first, second, third = (round(channels * width) for channels in WIDTHS)
    if first < 1:
        raise ValueError(f"width is {width}; it must leave the first stage at least one of its {WIDTHS[0]} channels")
    return ResNet20(num_classes, in_channels, (first, second, third))


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(Block(inputs, outputs), *(Block(outputs, outputs) for _ in range(BLOCKS - 1)))
