"""What of a configuration can only be known with torch, and takes seconds: said before hours of work, not after.

Networks are built on the meta device, where nothing is allocated and nothing is computed. It knows less than a real
one, so it can only say yes: where it does not, the network is built for real, and what that says is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlx_deploy.config import Data, Distill, Teacher, Training
from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.pipeline.stage import Setup

if TYPE_CHECKING:
    from torch import nn

    from dlx_deploy.nn.models.inputs import InputSpec

__all__ = ["rehearse_distill", "rehearse_teacher"]

_ROWS = 3
"""A user's network is asked for so many answers, and for each alone."""
_SIDE = 8
_CLASSES = 10
"""Where only the data will say; no network's shape depends on it but its last layer's."""


def rehearse_teacher(setup: Setup[Teacher]) -> None:
    """The teacher can be built, and trained as its section says.

    Raises:
        ConfigError: unknown network or arguments, or no logits. EnvironmentMissing: an extra or a GPU is not here.
    """
    from dlx_deploy.nn.transfer import transfer_of

    _rehearse_training(setup.config.teacher)
    transfer_of(setup.config.teacher)
    _rehearse_network(setup)


def rehearse_distill(setup: Setup[Distill]) -> None:
    """The student can be built, and trained as its section says.

    Raises:
        ConfigError: unknown network or arguments, or no logits. EnvironmentMissing: an extra or a GPU is not here.
    """
    _rehearse_training(setup.config.distill)
    _rehearse_network(setup)


def _rehearse_training(section: Training) -> None:
    from dlx_deploy.nn.compute import check_precision
    from dlx_deploy.nn.schedules import check_schedule

    if section.epochs:
        check_precision(section)
        check_schedule(section)


def _rehearse_network(setup: Setup[Teacher] | Setup[Distill]) -> None:
    import torch

    from dlx_deploy.nn.torch_rows import refuse_dependence

    name, arguments = setup.params.model, dict(setup.params.arguments)
    spec = _spec_of(setup.config.data)
    with torch.random.fork_rng(devices=[]):
        if "source" in setup.inputs and not name.startswith("hf:"):
            # A user's code may do anything, so it is not asked to do it on a device that it does not know.
            model = _build(f"{setup.inputs['source']}:{name.rpartition(':')[2]}", arguments, spec)
            batch = setup.config.export.batch
            refuse_dependence(model, spec.drawn(_ROWS), None if batch == "dynamic" else batch)
            return
        if name.startswith("hf:"):
            name, arguments, spec = _hugging_face(setup, arguments, spec)
        try:
            with torch.device("meta"):
                _build(name, arguments, spec)
        except (ConfigError, StageFailed, RuntimeError, NotImplementedError, TypeError, ValueError):
            _build(name, arguments, spec)


def _build(name: str, arguments: Mapping[str, Any], spec: InputSpec) -> nn.Module:
    from dlx_deploy.nn.models.registry import build_model, check_output

    model = build_model(name, arguments, _CLASSES, spec)
    check_output(model, _CLASSES, spec)
    return model


def _spec_of(data: Data) -> InputSpec:
    """What a network will read, as far as the configuration says."""
    from dlx_deploy.nn.models.inputs import ImageInput, TokenInput

    if data.is_text:
        return TokenInput(data.vocabulary, data.max_length)
    height = data.height or _SIDE
    return ImageInput(data.channels or (1 if data.kind == "digits" else 3), height, data.width or height)


def _hugging_face(
    setup: Setup[Teacher] | Setup[Distill], arguments: dict[str, Any], spec: InputSpec
) -> tuple[str, dict[str, Any], InputSpec]:
    """The network's own configuration, and an input that fits it: whether the data's tokenizer does is known later."""
    from msgspec.structs import replace

    from dlx_deploy.nn.models.external import hf_config
    from dlx_deploy.nn.models.inputs import TokenInput

    config = hf_config(str(setup.inputs.get("source", setup.params.model.removeprefix("hf:"))))
    values = {**config, **arguments}
    if isinstance(spec, TokenInput):
        pad = values.get("pad_token_id")
        spec = replace(spec, vocabulary=values.get("vocab_size", spec.vocabulary), pad_id=0 if pad is None else pad)
    return setup.params.model, {"config": config, **arguments}, spec
