"""Transfer learning: a network's layer groups, a new head, progressive unfreezing, learning rates per group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dlx_deploy.config import Teacher
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.weights.checkpoint import fitted, load_into

__all__ = [
    "Transfer",
    "freeze",
    "layer_groups",
    "load_with_new_head",
    "part_names",
    "rate_scales",
    "transfer_of",
    "trunk_modules",
]

_FEW = 4
"""A module of fewer parts than this is a wrapper around its largest part, the trunk."""


@dataclass(frozen=True)
class Transfer:
    """What of a network trains when, and how fast. Groups are counted from the head, which is group 0.

    ``unfreeze_epochs``: the epoch from which group 1, 2, … trains; the last number holds for the rest (gradual
    unfreezing, Howard and Ruder 2018). ``frozen_groups``: so many groups, from the input on, never train.
    ``layer_decay``: the learning rate of group i is multiplied by it i times.
    """

    unfreeze_epochs: tuple[int, ...] = ()
    frozen_groups: int = 0
    layer_decay: float = 1.0


def transfer_of(section: Teacher) -> Transfer:
    """The section's keys.

    Raises:
        ConfigError: an unfreezing after the end of training, or before that of an upper group.
    """
    epochs = section.unfreeze_epochs
    if section.epochs and epochs and (list(epochs) != sorted(epochs) or epochs[-1] >= section.epochs):
        raise ConfigError(
            f"teacher.unfreeze_epochs is {list(epochs)} and teacher.epochs is {section.epochs}; the numbers must rise "
            "and be below teacher.epochs, or what they unfreeze would never train"
        )
    return Transfer(epochs, section.frozen_groups, section.layer_decay)


def layer_groups(model: nn.Module) -> list[list[str]]:
    """The names of the parameters in groups from the head to the input: a ResNet's stages, a Transformer's layers.

    The groups are the parts of the network's trunk in the order in which they were defined; a normalisation between
    two parts belongs to the first of them, and bare parameters of the network to the one nearest the input.
    """
    prefixes = _parts(model, "")
    groups: list[list[str]] = [[] for _ in prefixes]
    for name, _ in model.named_parameters():
        inside = [i for i, part in enumerate(prefixes) if any(name.startswith(f"{p}.") for p in part)]
        groups[inside[0] if inside else 0].append(name)
    return [group for group in reversed(groups) if group]


def part_names(model: nn.Module) -> list[list[str]]:
    """The names of the modules of each of ``layer_groups``, in the same order; of a network of one module, none."""
    parts = _parts(model, "")
    return parts[::-1] if parts else [[]]


def trunk_modules(model: nn.Module) -> list[nn.Module]:
    """The parts of the trunk, from the input to the head."""
    return [model.get_submodule(name) for part in _parts(model, "") for name in part]


def freeze(model: nn.Module, groups: Sequence[Sequence[str]], transfer: Transfer, epoch: int) -> bool:
    """Let train what ``transfer`` says for ``epoch``; whether that changed anything.

    A batch normalisation whose parameters are frozen is put into evaluation mode: its statistics stay too.

    Raises:
        ConfigError: as many groups are frozen as there are.
    """
    if transfer.frozen_groups >= len(groups):
        raise ConfigError(
            f"teacher.frozen_groups is {transfer.frozen_groups}; the network has {len(groups)} layer groups and at "
            "least its head must train"
        )
    trains = {name: _begins(i, len(groups), transfer) <= epoch for i, group in enumerate(groups) for name in group}
    changed = False
    for name, parameter in model.named_parameters():
        changed |= parameter.requires_grad != trains[name]
        parameter.requires_grad = trains[name]
    for module in model.modules():
        own = [p.requires_grad for p in module.parameters(recurse=False)]
        if isinstance(module, _BatchNorm) and own and not any(own):
            module.eval()
    return changed


def rate_scales(groups: Sequence[Sequence[str]], transfer: Transfer) -> dict[str, float]:
    """Parameter name → what its learning rate is multiplied by (layer-wise decay, Clark et al. 2020)."""
    return {name: transfer.layer_decay**i for i, group in enumerate(groups) for name in group}


def load_with_new_head(model: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Set all of ``model`` but its head from ``state``; the head keeps its fresh weights.

    Raises:
        ConfigError: anything but the head is missing, left over or of another shape.
    """
    modules = {name.rpartition(".")[0] for name in layer_groups(model)[0]}
    own = model.state_dict()
    head = {name for name in own if name.rpartition(".")[0] in modules}
    whole = fitted(own, state, path)
    body = whole.without([name for name in whole if _in_head(name, own, head, modules)])
    body.update({name: own[name] for name in head})
    load_into(model, body, path, new_head=True)


def _in_head(name: str, own: Mapping[str, Tensor], head: set[str], modules: set[str]) -> bool:
    """Also what another head of the same place has more: a checkpoint's auxiliary tensors beside the classifier."""
    return name in head or (name not in own and name.rpartition(".")[0] in modules)


def _begins(group: int, count: int, transfer: Transfer) -> float:
    """The first epoch in which ``group`` trains."""
    if group >= count - transfer.frozen_groups:
        return float("inf")
    if group == 0 or not transfer.unfreeze_epochs:
        return 0
    return transfer.unfreeze_epochs[min(group, len(transfer.unfreeze_epochs)) - 1]


def _parts(module: nn.Module, prefix: str) -> list[list[str]]:
    """The prefixes of the trunk's parts, from the input to the head."""
    children = [(f"{prefix}{name}", child) for name, child in module.named_children() if _counted(child)]
    largest = max((_size(child) for _, child in children), default=0)
    wraps = len(children) == 1 or (len(children) < _FEW and not isinstance(module, nn.ModuleList | nn.Sequential))
    parts: list[list[str]] = []
    for name, child in children:
        is_trunk = isinstance(child, nn.ModuleList) or (wraps and _size(child) == largest > 1)
        if is_trunk and any(_counted(c) for c in child.children()):
            parts += _parts(child, f"{name}.")
        elif parts and _is_norm(child):
            parts[-1].append(name)
        else:
            parts.append([name])
    return parts


def _counted(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _size(module: nn.Module) -> int:
    """How many modules it consists of: a trunk has more than an embedding, however large that is."""
    return sum(1 for _ in module.modules())


def _is_norm(module: nn.Module) -> bool:
    return not any(True for _ in module.children()) and all(p.ndim <= 1 for p in module.parameters())
