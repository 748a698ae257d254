"""torchvision's ResNets and ViTs at another width, and a ViT of any size for small images.

Nothing here is a new layer: torchvision's own classes are built with other numbers of channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import ResNet
from torchvision.models.vision_transformer import VisionTransformer

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.arguments import refuse_unknown
from dlx_deploy.nn.models.inputs import ImageInput

__all__ = ["VIT_DEFAULTS", "build_vit", "can_scale", "scaled"]

NARROWEST, WIDEST = 1 / 16, 16
VIT_DEFAULTS: dict[str, Any] = {"patch": 4, "depth": 6, "heads": 4, "width": 128, "mlp_ratio": 2.0, "dropout": 0.0}
"""The arguments of ``vit``: patches in pixels, encoder layers, heads, channels of a token, its feed-forward's ratio."""


def can_scale(name: str) -> bool:
    """Whether torchvision's ``name`` is of a family that has a width."""
    return name.startswith(("resnet", "resnext", "wide_resnet", "vit_"))


def scaled(name: str, width: object, classes: int, patch: int = 0, **given: Any) -> nn.Module:
    """torchvision's ``name`` with ``width`` times as many channels everywhere, untrained.

    ``patch``, if it is not 0, is the side of a ViT's patches in pixels instead of the usual one.

    Raises:
        ConfigError: the family has no width, or ``width`` is not a number from 1/16 to 16.
    """
    if not can_scale(name):
        raise ConfigError(f"{name}: argument width is for the ResNet and ViT families; leave it out")
    if isinstance(width, bool) or not isinstance(width, int | float) or not NARROWEST <= width <= WIDEST:
        raise ConfigError(f"{name}: argument width is {width!r}; must be a number from {NARROWEST} to {WIDEST}")
    with torch.device("meta"):  # the numbers alone
        model = models.get_model(name, weights=None, num_classes=classes, **given)
    if isinstance(model, VisionTransformer):
        heads = model.encoder.layers[0].num_heads
        vit: nn.Module = VisionTransformer(
            image_size=model.image_size,
            patch_size=patch or model.patch_size,
            num_layers=len(model.encoder.layers),
            num_heads=heads,
            hidden_dim=heads * max(1, round(model.hidden_dim * width / heads)),
            mlp_dim=max(1, round(model.mlp_dim * width)),
            num_classes=classes,
        )
        return vit
    return _Scaled(model, float(width), classes)


def build_vit(name: str, arguments: Mapping[str, Any], classes: int, spec: ImageInput) -> nn.Module:
    """A Vision Transformer (Dosovitskiy et al. 2021): logits [N, classes] of images [N, channels, height, width].

    Raises:
        ConfigError: an argument is unknown or out of range, the image is not square, or patches or heads do not divide
            it.
    """
    refuse_unknown(name, arguments, VIT_DEFAULTS)
    sizes = {**VIT_DEFAULTS, **arguments}
    for key in ("patch", "depth", "heads", "width"):
        if isinstance(sizes[key], bool) or not isinstance(sizes[key], int) or sizes[key] < 1:
            raise ConfigError(f"vit: argument {key} is {sizes[key]!r}; must be a whole number from 1")
    if spec.height != spec.width or spec.height % sizes["patch"]:
        raise ConfigError(
            f"vit: the images are {spec.height} x {spec.width} and argument patch is {sizes['patch']}; "
            "images must be square and patches must divide them"
        )
    if sizes["width"] % sizes["heads"]:
        raise ConfigError(f"vit: argument width is {sizes['width']}; must be a multiple of heads, {sizes['heads']}")
    model: nn.Module = VisionTransformer(
        image_size=spec.height,
        patch_size=sizes["patch"],
        num_layers=sizes["depth"],
        num_heads=sizes["heads"],
        hidden_dim=sizes["width"],
        mlp_dim=max(1, round(sizes["width"] * sizes["mlp_ratio"])),
        dropout=sizes["dropout"],
        num_classes=classes,
    )
    if spec.channels != 3:
        model.conv_proj = nn.Conv2d(spec.channels, sizes["width"], sizes["patch"], sizes["patch"])
    return model


class _Scaled(ResNet):  # type: ignore[misc]
    """A ResNet with the layers of ``like`` and ``width`` times its channels."""

    def __init__(self, like: ResNet, width: float, classes: int) -> None:
        stages = [like.layer1, like.layer2, like.layer3, like.layer4]
        block: Any = type(like.layer1[0])
        self._width = width
        super().__init__(block, [len(s) for s in stages], classes, groups=like.groups, width_per_group=like.base_width)
        first = self._channels(64)
        self.conv1 = nn.Conv2d(3, first, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(first)
        self.fc = nn.Linear(self._channels(512) * block.expansion, classes)

    def _make_layer(self, block: Any, planes: int, blocks: int, stride: int = 1, dilate: bool = False) -> nn.Sequential:
        if planes == 64:  # the first stage: what the stem gives
            self.inplanes = self._channels(64)
        stage: nn.Sequential = super()._make_layer(block, self._channels(planes), blocks, stride, dilate)
        return stage

    def _channels(self, usual: int) -> int:
        """Whole groups of channels, at least one each."""
        groups = int(self.groups)
        return groups * max(1, round(usual * self._width / groups))
