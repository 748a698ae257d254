"""Weights that others trained, from the collections of torchvision, timm and Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

from torch import Tensor

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError, EnvironmentMissing
from dlx_deploy.nn.models.families import TIMM, Reads, family_of, loaded

__all__ = ["hf_image_state", "hf_state", "pretrained_state", "timm_state", "torchvision_state"]

DEFAULT = "DEFAULT"
_SECOND_HEAD = "aux_classifier."
_OFFLINE = "download it elsewhere and give the file as teacher.checkpoint, with new_head = true"


def pretrained_state(
    model: str, weights: str, folder: Path | None = None, reads: Reads | None = None
) -> tuple[Path, dict[str, Tensor]]:
    """Where the ``weights`` of ``model`` come from (for messages) and the state dict; downloaded once, then cached.

    ``weights`` is a name of torchvision's, as ``IMAGENET1K_V1``, or ``DEFAULT``, which the other collections alone
    know. ``folder`` is a Hugging Face model's that is here already. ``reads``: what its network reads.

    Raises:
        ConfigError: there are no such weights.
        EnvironmentMissing: they cannot be downloaded.
    """
    family = family_of(model, reads)
    if family is None or not family.weights:
        raise ConfigError(
            f"teacher.pretrained is {weights!r}; {model!r} has no weights in torchvision; give a file as "
            "teacher.checkpoint"
        )
    if family.prefix and weights != DEFAULT:
        raise ConfigError(f"teacher.pretrained is {weights!r}; for {model!r} it must be {DEFAULT!r}")
    origin: Path
    state: dict[str, Tensor]
    origin, state = loaded(family.weights)(model.removeprefix(family.prefix), weights, folder)
    return origin, state


def torchvision_state(model: str, weights: str, folder: Path | None) -> tuple[Path, dict[str, Tensor]]:
    """torchvision's ``weights`` of ``model``, without those of a second head for training alone.

    Raises:
        ConfigError: there are none of this name. EnvironmentMissing: they cannot be downloaded.
    """
    from torchvision import models

    known: Any = models.get_model_weights(model)
    if weights not in known.__members__:
        raise ConfigError(f"teacher.pretrained is {weights!r}; {nearest(weights, list(known.__members__))}")
    chosen = known[weights]
    try:
        state: dict[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as e:
        raise EnvironmentMissing(
            f"teacher.pretrained is {weights!r}: {chosen.url} cannot be fetched ({e}); {_OFFLINE}"
        ) from e
    return Path(Path(chosen.url).name), {name: t for name, t in state.items() if not name.startswith(_SECOND_HEAD)}


def timm_state(name: str, weights: str, folder: Path | None) -> tuple[Path, dict[str, Tensor]]:
    """timm's weights of its ``name``.

    Raises:
        EnvironmentMissing: they cannot be downloaded.
    """
    import timm

    try:
        state: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as e:
        raise EnvironmentMissing(f"the weights of timm:{name} cannot be fetched ({e}); {_OFFLINE}") from e
    return Path(f"{TIMM}{name}"), state


def hf_state(name: str, weights: str, folder: Path | None) -> tuple[Path, dict[str, Tensor]]:
    """The weights of Hugging Face's ``name``, which is in ``folder`` if it is here already.

    Raises:
        EnvironmentMissing: they cannot be downloaded.
    """
    import transformers

    return _hf_weights(transformers.AutoModelForSequenceClassification, name, folder)


def hf_image_state(name: str, weights: str, folder: Path | None) -> tuple[Path, dict[str, Tensor]]:
    """As ``hf_state``, of an image classifier.

    Raises:
        EnvironmentMissing: they cannot be downloaded.
    """
    import transformers

    return _hf_weights(transformers.AutoModelForImageClassification, name, folder)


def _hf_weights(auto: Any, name: str, folder: Path | None) -> tuple[Path, dict[str, Tensor]]:
    name = str(folder) if folder else name
    try:
        model: Any = auto.from_pretrained(name)
    except OSError as e:
        text = str(e).partition("\n")[0]
        raise EnvironmentMissing(
            f"the weights of hf:{name} cannot be fetched ({text}); give a folder as hf:PATH"
        ) from e
    return Path(name), {f"network.{key}": value for key, value in model.state_dict().items()}
