"""A MobileNetV2 for images of 32 x 32 pixels (Sandler et al. 2018): the first convolution and block keep their size."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops import Conv2dNormActivation

__all__ = ["MobileNet", "mobilenet"]

STEM, LAST = 16, 256
"""Channels of the first and of the last convolution."""
BLOCKS = ((1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 3, 2), (4, 64, 2, 1))
"""Of each stage: expansion, channels, blocks, stride of the first of them."""


class MobileNet(nn.Module):
    """Logits [N, num_classes] from normalised images [N, in_channels, 32, 32]."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv2dNormActivation(in_channels, STEM, activation_layer=nn.ReLU6)]
        channels = STEM
        for expansion, width, count, stride in BLOCKS:
            for at in range(count):
                layers.append(InvertedResidual(channels, width, stride if at == 0 else 1, expansion))
                channels = width
        layers.append(Conv2dNormActivation(channels, LAST, kernel_size=1, activation_layer=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(LAST, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


def mobilenet(num_classes: int, in_channels: int = 3) -> MobileNet:
    """The network, untrained."""
    return MobileNet(num_classes, in_channels)
