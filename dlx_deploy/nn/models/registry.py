"""Networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from msgspec.structs import replace
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.external import build_hf, build_timm, hf_config
from dlx_deploy.nn.models.inputs import ImageInput, InputSpec, TokenInput
from dlx_deploy.nn.models.outputs import Outputs, fits, named_tensors, sizes
from dlx_deploy.nn.models.resnet_cifar import DEPTHS, build_cifar_resnet
from dlx_deploy.nn.models.scaling import VIT_DEFAULTS, build_vit
from dlx_deploy.nn.models.sequence import SEQUENCE_DEFAULTS, build_sequence_model
from dlx_deploy.nn.models.torchvision_models import build_torchvision, torchvision_names
from dlx_deploy.nn.models.user import build_user, called, is_user
from dlx_deploy.plugins import load_plugin, provider

__all__ = ["HF", "TIMM", "build_model", "check_output", "expected_of", "is_ours", "kept_arguments", "model_names"]

VIT = "vit"
"""A Vision Transformer of any size, for small images."""
TIMM, HF = "timm:", "hf:"
"""What names of networks from these collections begin with."""
_IMAGE_EXAMPLES = ("resnet20", "vit", "mobilenet_v3_small", "timm:NAME")


def model_names() -> list[str]:
    """Every name that ``build_model`` knows, sorted."""
    return sorted({*DEPTHS, VIT, *SEQUENCE_DEFAULTS, *torchvision_names()})


def build_model(model: str, arguments: Mapping[str, Any], classes: int, spec: InputSpec) -> nn.Module:
    """The untrained network ``model`` for what ``spec`` describes, with logits float32[N, classes].

    ``model`` is one of ``model_names``, ``path/to/file.py:function``, or the name of what another package offers.
    Initial weights come from torch's global generator: seed it first.

    Raises:
        ConfigError: an unknown name, arguments it does not take, a network for another kind of input, or a user's file
            that does not give a network.
    """
    if is_user(model):
        return _materialised(build_user(model, arguments, classes, spec), spec)
    if not is_ours(model) and not model.startswith((HF, TIMM)) and provider("model", model):
        plugin = load_plugin("model", model, (), "install the package that brings it")
        if not callable(plugin.value):
            raise ConfigError(f"model {model!r}: {plugin.point!r} of {plugin.distribution} is no function")
        return _materialised(called(plugin.value, plugin.point, arguments, classes, spec), spec)
    if isinstance(spec, TokenInput):
        return _build_text_model(model, arguments, classes, spec)
    if model in SEQUENCE_DEFAULTS or model.startswith(HF):
        raise ConfigError(f"model {model!r} is for texts, and the data are images; {_examples(_IMAGE_EXAMPLES)}")
    return _build_image_model(model, arguments, classes, spec)


def kept_arguments(model: str, arguments: Mapping[str, Any], spec: InputSpec, folder: str) -> dict[str, Any]:
    """``arguments`` as an artifact keeps them, so that it loads without the folder or the hub that ``model`` names.

    ``folder``: where a Hugging Face model's files are; empty if they are not here.
    """
    if not model.startswith(HF) or not isinstance(spec, TokenInput):
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
    return model in SEQUENCE_DEFAULTS or model == VIT or model in DEPTHS or model in torchvision_names()


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


def _build_text_model(model: str, arguments: Mapping[str, Any], classes: int, spec: TokenInput) -> nn.Module:
    if model.startswith(HF):
        return build_hf(model.removeprefix(HF), arguments, classes, spec)
    if model not in SEQUENCE_DEFAULTS:
        raise ConfigError(
            f"model {model!r} is no network for texts; {_examples([*SEQUENCE_DEFAULTS, 'hf:NAME_OR_PATH'])}"
        )
    return build_sequence_model(model, arguments, classes, spec)


def _examples(names: Sequence[str]) -> str:
    return f"these are: {', '.join(names)}, FILE.py:FUNCTION"


def _build_image_model(model: str, arguments: Mapping[str, Any], classes: int, spec: ImageInput) -> nn.Module:
    if model.startswith(TIMM):
        return build_timm(model.removeprefix(TIMM), arguments, classes, spec)
    if model == VIT:
        _refuse_unknown(model, arguments, list(VIT_DEFAULTS))
        return build_vit(arguments, classes, spec.channels, spec.height, spec.width)
    if model in DEPTHS:
        parameters = inspect.signature(build_cifar_resnet).parameters.values()
        _refuse_unknown(model, arguments, [p.name for p in parameters if p.kind is p.KEYWORD_ONLY])
        return build_cifar_resnet(model, spec.channels, classes, **arguments)
    if model not in torchvision_names():
        raise ConfigError(
            f"unknown model {model!r}; {nearest(model, model_names())}; "
            "a model is one of these, any torchvision classifier, timm:NAME, or FILE.py:FUNCTION"
        )
    return build_torchvision(model, arguments, classes, spec.channels, spec.height)


def _refuse_unknown(model: str, arguments: Mapping[str, Any], known: list[str]) -> None:
    for key, value in arguments.items():
        if key not in known:
            raise ConfigError(f"{model}: unknown argument {key!r} ({value!r}); {nearest(key, known)}")
