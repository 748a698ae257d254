"""Image classifiers of Hugging Face: ViT, Swin, ConvNeXt, ResNet and what else its configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dlx_deploy.errors import EnvironmentMissing
from dlx_deploy.extras import install_command
from dlx_deploy.nn.models.external import hf_made_config, hf_network, hf_values
from dlx_deploy.nn.models.inputs import ImageInput

__all__ = ["HuggingFaceImageClassifier", "build_hf_images"]

_ATTENTIONS = ("eager",)
"""torch's own, of Swin's windows, is not exported with a dynamic batch, and is the same products in a graph."""


class HuggingFaceImageClassifier(nn.Module):
    """A Hugging Face image classifier that reads float32[N, C, H, W] and gives logits [N, classes]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, classes] of ``images`` [N, C, H, W]."""
        logits: Tensor = self.network(pixel_values=images).logits
        return logits


def build_hf_images(name: str, arguments: Mapping[str, Any], classes: int, spec: ImageInput) -> nn.Module:
    """The Hugging Face image classifier ``name``, untrained.

    ``arguments`` change its configuration; with ``config`` (what ``hf_config`` gave) nothing is looked up. It gets the
    size of the images, where its configuration has one.

    Raises:
        EnvironmentMissing: transformers is not installed, or the configuration cannot be fetched.
        ConfigError: no such model, or one that is no image classifier.
    """
    try:
        import transformers
    except ImportError as e:
        raise EnvironmentMissing(f"model 'hf:{name}' needs transformers ({e}); {install_command('hf')}") from e
    values = hf_values(name, arguments)
    own: dict[str, Any] = {"num_labels": classes}
    if "image_size" in values and "image_size" not in arguments:
        own["image_size"] = spec.height if spec.height == spec.width else (spec.height, spec.width)
    if "num_channels" in values and "num_channels" not in arguments:
        own["num_channels"] = spec.channels
    config = hf_made_config(name, arguments, {**values, **own})
    auto = transformers.AutoModelForImageClassification
    return HuggingFaceImageClassifier(hf_network(auto, config, name, "image classifier", _ATTENTIONS))
