"""The parts of a network that transfer learning freezes and lets train, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.families import is_user
from dlx_deploy.nn.models.hollow import hollow_model
from dlx_deploy.nn.models.inputs import InputSpec
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.training.transfer import layer_groups, part_names

__all__ = ["Cost", "Part", "cost_of", "network_of", "parts_of"]


_WHOLE = "Global"
"""What torch's counter calls the whole network."""


class Part(msgspec.Struct, frozen=True):
    """``modules``: their names. ``macs``: multiply-accumulates of one sample; ``None`` where nothing counts them."""

    modules: tuple[str, ...]
    parameters: int
    macs: int | None


class Cost(msgspec.Struct, frozen=True):
    """``macs``: multiply-accumulates of one sample; ``None`` where nothing counts them."""

    parameters: int
    macs: int | None


def cost_of(model: nn.Module, spec: InputSpec) -> Cost:
    """What ``model`` costs, hollow or not."""
    costs = _macs(model, spec)
    return Cost(sum(p.numel() for p in model.parameters()), None if costs is None else costs[_WHOLE])


def network_of(model: str, arguments: Mapping[str, Any], classes: int, spec: InputSpec) -> nn.Module:
    """The untrained network, without memory for its weights where it is not a user's own, whose code may do anything.

    Raises:
        ConfigError: as ``build_model``.
    """
    build = build_model if is_user(model) else hollow_model
    return build(model, arguments, classes, spec)


def parts_of(model: nn.Module, spec: InputSpec) -> list[Part]:
    """The parts of ``model``, from the head to the input: group 0, 1, … of ``layer_groups``."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    costs = _macs(model, spec)
    parts = []
    for group, modules in zip(layer_groups(model), _with_parameters(model), strict=True):
        macs = sum(costs.get(name, 0) for name in modules) if costs is not None else None
        parts.append(Part(tuple(modules), sum(sizes[name] for name in group), macs))
    return parts


def _with_parameters(model: nn.Module) -> list[list[str]]:
    def counts(name: str) -> bool:
        return any(True for _ in model.get_submodule(name).parameters())

    return [names for names in part_names(model) if any(map(counts, names))]


def _macs(model: nn.Module, spec: InputSpec) -> dict[str, int] | None:
    """The multiply-accumulates of every module by its name; ``None`` where no forward pass is possible."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    training = model.training
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(spec.example(1).to(device))
    except (RuntimeError, NotImplementedError, TypeError, ValueError, ConfigError):
        return None  # what a hollow network cannot compute with
    finally:
        model.train(training)
    root = f"{type(model).__name__}."
    return {name.removeprefix(root): sum(counts.values()) // 2 for name, counts in counter.get_flop_counts().items()}
