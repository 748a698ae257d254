"""What a network's own library makes of a picture: a function of Pillow's image that gives float32[C, H, W]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dlx_deploy.nn.models.recipe_readers import hf_processor, timm_config, torchvision_preset, wraps_timm
from dlx_deploy.nn.models.recipes import Trained
from dlx_deploy.runtime.untyped import Foreign

__all__ = ["Reference", "hf_reference", "timm_reference", "torchvision_reference"]

Reference = Callable[[Foreign], Tensor]


def torchvision_reference(trained: Trained) -> Reference:
    """The transforms of the weights.

    Raises:
        UnknownRecipe: torchvision has no such weights.
    """
    _, preset = torchvision_preset(trained)
    return lambda picture: _tensor(preset(picture))


def timm_reference(trained: Trained) -> Reference:
    """timm's transforms for evaluation.

    Raises:
        UnknownRecipe: timm has no such network.
    """
    import timm

    data: Any = timm.data
    transform = data.create_transform(**timm_config(trained)[1], is_training=False)
    return lambda picture: _tensor(transform(picture))


def hf_reference(trained: Trained) -> Reference:
    """The image processor of the weights.

    Raises:
        UnknownRecipe: there is none. OSError: the hub cannot be reached.
    """
    if wraps_timm(trained):
        return timm_reference(trained)
    processor = hf_processor(trained)
    return lambda picture: _tensor(processor(picture, return_tensors="pt").pixel_values[0])


def _tensor(made: Any) -> Tensor:
    tensor: Tensor = made
    return tensor
