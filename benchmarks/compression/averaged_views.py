"""A ResNet-20 that answers with the mean of its logits over six views of an image: the teacher of whole_pipeline.py.

Test-time augmentation: an image, two shifts of it by a pixel, and the mirror images of the three. It is right more
often than the network asked once, and takes six times as long: too long for a device, but a student can learn it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dlx_deploy.nn.models.resnet_cifar import CifarResNet

__all__ = ["AveragedViews", "averaged"]

WIDTHS = (16, 32, 64)
SHIFTS = (1, 2, 0)
"""Where the image begins in itself with a border of one mirrored pixel: 1 is in the middle."""


class AveragedViews(CifarResNet):
    """A ResNet of 32 x 32 images under its own names, so that its checkpoints fit."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, classes] from float32[N, 3, H, W]."""
        height, width = x.shape[2:]
        bordered = F.pad(x, (1, 1, 1, 1), mode="reflect")
        shifted = [bordered[:, :, i : i + height, i : i + width] for i in SHIFTS]
        views = torch.cat([*shifted, *(view.flip(3) for view in shifted)])  # [6 * N, 3, H, W]
        logits = super().forward(views)
        return logits.reshape(2 * len(SHIFTS), -1, logits.shape[1]).mean(0)


def averaged(num_classes: int) -> AveragedViews:
    """A ResNet-20 of padded shortcuts (option A), asked six times."""
    return AveragedViews(3, WIDTHS, 3, num_classes, "A")
