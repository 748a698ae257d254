"""What is wrong at first sight with a section that trains a network: no heavy library, no file but a user's own."""

from __future__ import annotations

from pathlib import Path

from dlx_deploy.config import Distill, Teacher, Training
from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Setup

__all__ = ["check_model", "check_training"]


def check_model(section: str, model: str, setup: Setup[Teacher] | Setup[Distill]) -> None:
    """``model``, as ``section`` names it, is a network for the data.

    Raises:
        ConfigError: it is unknown, for other data, or a user's file without that function.
    """
    from dlx_deploy.nn.models import names

    texts = setup.config.data.is_text
    if names.USER in model:
        _check_user(section, model, setup.inputs["source"])
        return
    if model.startswith(names.HF) and "source" not in setup.inputs:
        _check_folder(section, model.removeprefix(names.HF))
    if names.for_texts(model) is texts and model.startswith((names.HF, names.TIMM)):
        return
    if names.for_texts(model) and not texts:
        raise ConfigError(
            f"model {model!r} is for texts, and the data are images; set {section}.model for instance to 'resnet20', "
            "'mobilenet_v3_small', 'timm:NAME' or 'FILE.py:FUNCTION'"
        )
    if not texts and model in (*names.CIFAR, names.VIT):
        return  # without reading torchvision's source
    known = names.text_models() if texts else names.image_models()
    if known and model not in known:
        unknown = "no network for texts" if texts else "unknown"
        others = "'hf:NAME_OR_PATH'" if texts else "'timm:NAME'"
        raise ConfigError(
            f"{section}.model is {model!r}, {unknown}; {nearest(model, known)}; it is one of these, {others} or "
            "'FILE.py:FUNCTION'"
        )


def _check_user(section: str, model: str, path: Path) -> None:
    from dlx_deploy.nn.models.names import nearest_function

    function = model.rpartition(":")[2]
    try:
        others = nearest_function(path, function)
    except (SyntaxError, ValueError) as e:
        raise ConfigError(f"{section}.model is {model!r}, and {path} is no Python: {e}; correct it") from e
    except OSError as e:
        raise ConfigError(f"{section}.model is {model!r}, and {path} cannot be read ({e.strerror})") from e
    if others is not None:
        hint = nearest(function, others) if others else "the file defines no function"
        raise ConfigError(f"{section}.model is {model!r}: {path} has no function {function!r}; {hint}")


def _check_folder(section: str, name: str) -> None:
    """A name on the hub is NAME or OWNER/NAME; whatever else looks like a path is one, and is not here."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ConfigError(
            f"{section}.model is 'hf:{name}', and there is no such folder; give one with config.json, or a name on the "
            "hub"
        )


def check_training(name: str, section: Training, is_text: bool) -> None:
    """The keys of the section ``name`` that only fit together in some ways.

    Raises:
        ConfigError: they do not.
    """
    if not section.epochs:
        return
    if section.batch_size < 2 and not is_text:
        raise ConfigError(
            f"{name}.batch_size is {section.batch_size}; batch normalisation needs at least 2 images in a batch"
        )
    first = section.restart_epochs
    if section.schedule == "cosine-restarts" and not 1 <= first <= section.epochs:
        raise ConfigError(
            f"{name}.restart_epochs is {first} and {name}.epochs is {section.epochs}; with schedule = "
            "'cosine-restarts' the first cycle must be 1 epoch or more and not longer than training"
        )
