"""A small U-Net, as a user's own file would have it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def block(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution, batch normalisation and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    """Two levels down and up again; what comes up is put beside what was there. ``several``: its mean as well."""

    def __init__(self, up: str, width: int = 16, classes: int = 5, several: bool = False) -> None:
        super().__init__()
        self.up, self.several = up, several
        self.down1, self.down2 = block(3, width), block(width, 2 * width)
        self.bottom = block(2 * width, 4 * width)
        self.up2, self.up1 = block(6 * width, 2 * width), block(3 * width, width)
        self.grow2, self.grow1 = nn.Identity(), nn.Identity()
        if up == "transposed":
            self.grow2 = nn.ConvTranspose2d(4 * width, 4 * width, 2, 2)
            self.grow1 = nn.ConvTranspose2d(2 * width, 2 * width, 2, 2)
        self.head = nn.Conv2d(width, classes, 1)
        for i, (name, parameter) in enumerate(self.named_parameters()):
            if name.endswith("bias"):  # distinct numbers, so that it can be seen what went
                with torch.no_grad():
                    parameter.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(i))

    def forward(self, x: Tensor) -> Any:
        one = self.down1(x)
        two = self.down2(functional.max_pool2d(one, 2))
        low = self.grow2(self.bottom(functional.max_pool2d(two, 2)))
        low = self.grow1(self.up2(torch.cat([two, self._resized(low, two)], 1)))
        logits = self.head(self.up1(torch.cat([one, self._resized(low, one)], 1)))
        return (logits, logits.mean((2, 3))) if self.several else logits

    def _resized(self, x: Tensor, like: Tensor) -> Tensor:
        if self.up == "transposed":
            return x
        options = {} if self.up == "nearest" else {"align_corners": False}
        return functional.interpolate(x, like.shape[2:], mode=self.up, **options)


def make(num_classes: int, up: str) -> nn.Module:
    """An untrained one, for three channels."""
    return UNet(up, classes=num_classes)
