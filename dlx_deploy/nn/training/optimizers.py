"""The optimizer of a run: its kind, its groups, and its state by the names of the parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from dlx_deploy.config import Training

__all__ = ["new_optimizer", "optimizer_shapes", "optimizer_state", "restore_optimizer", "set_rate"]


def new_optimizer(model: nn.Module, settings: Training, scales: Mapping[str, float]) -> Optimizer:
    """SGD with Nesterov momentum, or AdamW (Loshchilov and Hutter 2019).

    Weight decay holds for matrices and kernels only, not for biases and normalisation. ``scales`` multiply the learning
    rate of a parameter.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((-scales.get(name, 1.0), -decay), []).append(parameter)
    listed: Any = [{"params": p, "scale": -s, "weight_decay": -d} for (s, d), p in sorted(groups.items(), key=_key)]
    if settings.optimizer == "adamw":
        return AdamW(listed, lr=0.0)
    return SGD(listed, lr=0.0, momentum=settings.momentum, nesterov=settings.momentum > 0)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group its share of ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    """(``KEY.PARAMETER``, tensor) for all that the optimizer keeps between steps."""
    for name, parameter in model.named_parameters():
        for key, value in sorted(optimizer.state.get(parameter, {}).items()):
            if isinstance(value, Tensor):
                yield f"{key}.{name}", value


def optimizer_shapes(model: nn.Module, optimizer: Optimizer, state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """The names and shapes that ``state`` must have: of each parameter that it names all that the optimizer keeps."""
    keys = ("exp_avg", "exp_avg_sq", "step") if isinstance(optimizer, AdamW) else ("momentum_buffer",)
    shapes: dict[str, torch.Size] = {}
    for name, parameter in model.named_parameters():
        if any(f"{key}.{name}" in state for key in keys):
            shapes |= {f"{key}.{name}": torch.Size() if key == "step" else parameter.shape for key in keys}
    return shapes


def restore_optimizer(model: nn.Module, optimizer: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Set what ``optimizer_state`` gave."""
    parameters = dict(model.named_parameters())
    for full, value in state.items():
        key, _, name = full.partition(".")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            # Cloned for its strides (channels-last): the update must run as it did before.
            value = parameter.detach().clone().copy_(value)
        optimizer.state[parameter][key] = value


def _key(item: tuple[tuple[float, float], Any]) -> tuple[float, float]:
    return item[0]
