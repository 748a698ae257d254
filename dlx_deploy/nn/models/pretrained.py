"""Weights that others trained, from the collections of torchvision, timm and Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

from torch import Tensor

from dlx_deploy.errors import ConfigError, EnvironmentMissing
from dlx_deploy.nn.models.torchvision_models import torchvision_names
from dlx_deploy.strict import nearest

__all__ = ["pretrained_state"]


def pretrained_state(model: str, weights: str) -> tuple[Path, dict[str, Tensor]]:
    """Where the ``weights`` of ``model`` come from (for messages) and the state dict; downloaded once, then cached.

    ``weights`` is a name of torchvision's, as ``IMAGENET1K_V1``, or ``DEFAULT``.

    Raises:
        ConfigError: there are no such weights.
        EnvironmentMissing: they cannot be downloaded.
    """
    if model not in torchvision_names():
        raise ConfigError(
            f"teacher.pretrained is {weights!r}; {model!r} has no weights in torchvision; give a file as "
            "teacher.checkpoint"
        )
    from torchvision import models

    found: Any = models.get_model_weights(model)
    if weights not in found.__members__:
        raise ConfigError(f"teacher.pretrained is {weights!r}; {nearest(weights, list(found.__members__))}")
    chosen = found[weights]
    try:
        state: dict[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as e:
        raise EnvironmentMissing(
            f"teacher.pretrained is {weights!r}: {chosen.url} cannot be fetched ({e}); download it elsewhere and give "
            "the file as teacher.checkpoint, with new_head = true"
        ) from e
    return Path(Path(chosen.url).name), state
