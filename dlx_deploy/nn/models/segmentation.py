"""torchvision's networks for semantic segmentation, untrained: a logit of each class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.torchvision_models import take_channels

__all__ = ["Segmenter", "build_segmentation"]


class Segmenter(nn.Module):
    """A backbone of torchvision's and a head, under the names that they have there, and one tensor as the answer.

    ``whole``: the head reads several of the backbone's maps (Lite R-ASPP, Howard et al. 2019), not the last alone
    (DeepLabV3, Chen et al. 2017; FCN, Long et al. 2015).
    """

    def __init__(self, built: nn.Module, whole: bool) -> None:
        super().__init__()
        self.backbone, self.classifier = built.get_submodule("backbone"), built.get_submodule("classifier")
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, classes, H, W] of images [N, C, H, W]; the head's are 1/8 or 1/16 as large."""
        maps = self.backbone(x)
        logits = self.classifier(maps if self.whole else maps["out"])
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)


def build_segmentation(model: str, arguments: Mapping[str, Any], classes: int, spec: ImageInput) -> Segmenter:
    """torchvision's ``model``, without the second head that some have for training alone.

    Raises:
        ConfigError: there are arguments: it takes none.
    """
    from torchvision import models

    if arguments:
        raise ConfigError(f"{model}: takes no arguments; they are {dict(arguments)}: set arguments = {{}}")
    built = models.get_model(model, weights=None, weights_backbone=None, num_classes=classes)
    network = Segmenter(built, whole=isinstance(built, models.segmentation.LRASPP))
    if spec.channels != 3:
        take_channels(network, spec.channels)
    return network
