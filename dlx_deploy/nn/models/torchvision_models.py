"""torchvision's classifiers, untrained, for any number of channels and for small images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.scaling import scaled

__all__ = ["build_torchvision", "take_channels"]

SMALL_PATCH = 4
# The auxiliary heads are for training from nothing at 299 px; the default initialisation of these two takes seconds.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}


def build_torchvision(name: str, arguments: Mapping[str, Any], classes: int, spec: ImageInput) -> nn.Module:
    """torchvision's ``name`` with ``arguments`` for its own builder, and with our ``stem`` and ``width``.

    ``stem = "small"``, for images up to 64 px: a ResNet starts with a 3 x 3 convolution at full resolution, a ViT with
    patches of 4 px. ``width`` multiplies the channels of ResNets and ViTs.

    Raises:
        ConfigError: an argument is not one that this network takes.
    """
    from torchvision import models

    given = dict(arguments)
    stem = given.pop("stem", "standard")
    if stem not in ("standard", "small"):
        raise ConfigError(f"{name}: argument stem is {stem!r}; must be 'standard' or 'small'")
    width = given.pop("width", 1.0)
    given = {**_DEFAULTS.get(name, {}), **({"image_size": spec.height} if name.startswith("vit_") else {}), **given}
    patch = SMALL_PATCH if stem == "small" and name.startswith("vit_") else 0
    try:
        model: nn.Module = (
            models.get_model(name, weights=None, num_classes=classes, **given)
            if width == 1.0 and not patch
            else scaled(name, width, classes, patch, **given)
        )
    except (TypeError, ValueError, RuntimeError) as e:
        raise ConfigError(f"{name}: torchvision does not build it with arguments {given}: {e}") from e
    if stem == "small" and not patch:
        _small_stem(model, name)
    if spec.channels != 3:
        take_channels(model, spec.channels)
    return model


def _small_stem(model: nn.Module, name: str) -> None:
    """A 3 x 3 stride-1 first convolution and no pooling after it, as is usual for images up to 64 px."""
    conv = getattr(model, "conv1", None)
    pool = getattr(model, "maxpool", None)
    if not (re.search(r"res(net|next)", name) and isinstance(conv, nn.Conv2d) and isinstance(pool, nn.MaxPool2d)):
        raise ConfigError(f"{name}: argument stem = 'small' is for the ResNet families (resnet18, resnext50_32x4d, …)")
    small = nn.Conv2d(conv.in_channels, conv.out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = small
    model.maxpool = nn.Identity()


def take_channels(model: nn.Module, channels: int) -> None:
    """Replace the first convolution by one for images of ``channels`` channels."""
    name, conv = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    fresh = nn.Conv2d(
        channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, fresh)
