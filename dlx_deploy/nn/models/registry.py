"""Networks by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from msgspec.structs import replace
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.external import hf_config
from dlx_deploy.nn.models.families import HF, Family, examples, family_of, is_user, loaded, model_names, unlisted
from dlx_deploy.nn.models.inputs import InputSpec, TokenInput
from dlx_deploy.nn.models.outputs import Outputs, fits, named_tensors, sizes
from dlx_deploy.nn.models.user import build_user, called
from dlx_deploy.plugins import load_plugin, provider

__all__ = ["build_model", "check_output", "expected_of", "is_ours", "kept_arguments"]


def build_model(model: str, arguments: Mapping[str, Any], classes: int, spec: InputSpec) -> nn.Module:
    """The untrained network ``model`` for what ``spec`` describes and so many ``classes``; ``check_output`` asks it.

    ``model`` is one of a family, ``path/to/file.py:function``, or the name of what another package offers.
    Initial weights come from torch's global generator: seed it first.

    Raises:
        ConfigError: an unknown name, arguments it does not take, a network for another kind of input, or a user's file
            that does not give a network.
    """
    if is_user(model):
        return _materialised(build_user(model, arguments, classes, spec), spec)
    family = family_of(model, spec.reads)
    if family is None and provider("model", model):
        plugin = load_plugin("model", model, (), "install the package that brings it")
        if not callable(plugin.value):
            raise ConfigError(f"model {model!r}: {plugin.point!r} of {plugin.distribution} is no function")
        return _materialised(called(plugin.value, plugin.point, arguments, classes, spec), spec)
    family = family or _once_imported(model, spec)
    if family.reads != spec.reads:
        raise ConfigError(f"model {model!r} is for {family.reads}, and the data are {spec.reads}; {_offered(spec)}")
    network: nn.Module = loaded(family.builder)(model.removeprefix(family.prefix), arguments, classes, spec)
    return network


def _once_imported(model: str, spec: InputSpec) -> Family:
    """The family of a ``model`` whose names are known once torchvision is imported: its source cannot be read."""
    if unlisted(spec.reads):
        importlib.import_module("torchvision.models")
        if family := family_of(model):
            return family
    known = nearest(model, model_names(spec.reads))
    others = ", ".join(examples(spec.reads, collections=True))
    raise ConfigError(f"unknown model {model!r}; {known}; a model is one of these, {others}, or FILE.py:FUNCTION")


def _offered(spec: InputSpec) -> str:
    return f"these are: {', '.join(examples(spec.reads))}, FILE.py:FUNCTION"


def kept_arguments(model: str, arguments: Mapping[str, Any], spec: InputSpec, folder: str) -> dict[str, Any]:
    """``arguments`` as an artifact keeps them, so that it loads without the folder or the hub that ``model`` names.

    ``folder``: where a Hugging Face model's files are; empty if they are not here.
    """
    if not model.startswith(HF):
        return dict(arguments)
    return {"config": hf_config(folder or model.removeprefix(HF)), **arguments}


def expected_of(model: str, arguments: Mapping[str, Any], spec: InputSpec) -> tuple[dict[str, Any], InputSpec]:
    """The arguments of a network that is built before its data are there, and an input that fits it.

    A Hugging Face model brings its vocabulary; whether the data's tokenizer has the same is known later.
    """
    if not model.startswith(HF):
        return dict(arguments), spec
    config = hf_config(model.removeprefix(HF))
    values = {**config, **arguments}
    if isinstance(spec, TokenInput):
        pad = values.get("pad_token_id")
        spec = replace(spec, vocabulary=values.get("vocab_size", spec.vocabulary), pad_id=0 if pad is None else pad)
    return {"config": config, **arguments}, spec


def is_ours(model: str) -> bool:
    """Whether ``model`` is a network of ours or of torchvision."""
    family = family_of(model)
    return family is not None and not family.prefix


def check_output(model: nn.Module, outputs: Outputs, spec: InputSpec) -> None:
    """Nothing, once ``model`` has given ``outputs`` for two examples of ``spec``.

    Raises:
        ConfigError: it raised, or gave something else: the shapes seen.
    """
    training = model.training
    model.eval()
    example = spec.example(2)
    given = f"{spec.noun} {list(example.shape)}"
    try:
        with torch.no_grad():
            answer = model(example)
    except Exception as e:  # a network's forward may raise anything
        raise ConfigError(f"the model does not take {given}: {type(e).__name__}: {e}") from e
    finally:
        model.train(training)
    tensors = named_tensors(answer, outputs)
    if tensors is None or not all(fits(tensors[name].shape, 2, dims) for name, dims in outputs.items()):
        several = "a tuple of " if len(outputs) > 1 else ""
        wanted = " and ".join(f"{name} {sizes(dims)}" for name, dims in outputs.items())
        raise ConfigError(f"the model gives {_shown(answer, outputs)} for {given}; it must give {several}{wanted}")


def _shown(answer: object, outputs: Outputs) -> str:
    tensors = named_tensors(answer, outputs)
    if tensors is None:
        return f"a {type(answer).__name__}"
    return " and ".join(str(list(tensor.shape)) for tensor in tensors.values())


def _materialised(model: nn.Module, spec: InputSpec) -> nn.Module:
    """``model`` with the sizes that its lazy layers take from what they first see.

    Raises:
        ConfigError: they still have none.
    """
    if not _lazy(model):
        return model
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(spec.example(2))
    except Exception as e:  # a network's forward may raise anything
        raise ConfigError(
            f"the model has lazy layers, and they do not take {spec.noun} {list(spec.example(2).shape)}: "
            f"{type(e).__name__}: {e}"
        ) from e
    if unused := _lazy(model):
        raise ConfigError(
            f"the model's {unused[0]} is lazy, and no forward pass reaches it; give it its size or leave it out"
        )
    return model.train(training)


def _lazy(model: nn.Module) -> list[str]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return [name for name, tensor in named if isinstance(tensor, UninitializedParameter | UninitializedBuffer)]
