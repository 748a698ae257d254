"""Weights set to zero where they stand: 2:4 for sparse tensor cores, or the smallest ones for a smaller file.

No layer changes its shape. 2:4 (Mishra et al. 2021, arXiv 2104.08378): of four weights in a row along the input
channels the two largest stay. Unstructured (Han et al. 2015, arXiv 1506.02626): the smallest of each layer or of all
layers go. What is zero stays zero while the network learns on, by ``Masks.keep`` after every update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dlx_deploy.config import Prune
from dlx_deploy.errors import StageFailed

__all__ = ["Masks", "check_sparsity", "sparsity_masks", "two_four_modules"]

GROUP, KEPT = 4, 2
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""Of ``nn.MultiheadAttention``, beside its linear layer."""


@dataclass(frozen=True)
class Masks:
    """By parameter, bool of its shape: which weights stay. ``left``: which layers stay whole, and why."""

    kept: Mapping[str, Tensor]
    left: Mapping[str, str]
    _moved: dict[tuple[str, torch.device], Tensor] = field(default_factory=dict, repr=False, compare=False)

    def keep(self, model: nn.Module, step: int = 0) -> None:
        """Set to zero in ``model`` what does not stay: a ``Hooks.after_update``, so ``step`` is of no matter."""
        with torch.no_grad():
            for name, mask in self.kept.items():
                parameter = model.get_parameter(name)
                if (name, parameter.device) not in self._moved:  # a GPU gets each mask once
                    self._moved[name, parameter.device] = mask.to(parameter.device)
                parameter.masked_fill_(~self._moved[name, parameter.device], 0.0)

    @property
    def zeros(self) -> float:
        """The share of the weights with a mask that is zero, 0..1."""
        return 1 - sum(int(m.sum()) for m in self.kept.values()) / sum(m.numel() for m in self.kept.values())

    def told(self, sparsity: str) -> str:
        """What was done, in a sentence."""
        text = f"{sparsity}: {100 * self.zeros:.1f} % of the weights of {len(self.kept)} layers are zero"
        return f"{text}; whole stay {_few(self.left)}" if self.left else text


def check_sparsity(model: nn.Module, params: Prune) -> None:
    """By the shapes alone (of tensors on the meta device, say): there is something that can be made sparse.

    Raises:
        StageFailed: there is not.
    """
    weights, left = _weights(model, params.sparsity)
    if not weights:
        which = f": {_few(left)}" if left else ", as it has no convolution or linear layer"
        raise StageFailed(
            f"prune.sparsity is {params.sparsity!r}, and no layer of this {type(model).__name__} can be so{which}; "
            "set prune.sparsity = 'none'"
        )


def sparsity_masks(model: nn.Module, params: Prune) -> Masks:
    """Which weights of ``model`` stay under ``params.sparsity``: the largest in magnitude; ``model`` stays as it is.

    Raises:
        StageFailed: no layer can be so, or one would lose all its weights.
    """
    check_sparsity(model, params)
    weights, left = _weights(model, params.sparsity)
    if params.sparsity == "2:4":
        return Masks({name: _two_four(weight) for name, weight in weights.items()}, left)
    ratio = params.sparsity_ratio
    if params.sparsity_scope == "layer":
        return Masks({name: _above(weight, _smallest(weight, ratio)) for name, weight in weights.items()}, left)
    everything = torch.cat([weight.detach().flatten() for weight in weights.values()])
    threshold = _smallest(everything, ratio)
    masks = {name: _above(weight, threshold) for name, weight in weights.items()}
    empty = [name for name, mask in masks.items() if not mask.any() and weights[name].any()]
    if empty:
        largest = min(float(weights[name].detach().abs().max()) for name in empty)
        most = float((everything.abs() < largest).double().mean())
        raise StageFailed(
            f"prune.sparsity_ratio is {ratio:g}, and {empty[0]!r} would lose all its weights; lower it to at most "
            f"{int(1000 * most) / 1000:g}, or set prune.sparsity_scope = 'layer', which takes the same share of each"
        )
    return Masks(masks, left)


def two_four_modules(model: nn.Module) -> list[str]:
    """The names of the convolutions and linear layers of ``model`` whose weights are 2:4 and not all zero."""
    found = []
    for name, weight in _weights(model, "2:4")[0].items():
        groups = _groups(weight.detach())
        if bool(weight.any()) and bool(((groups != 0).sum(1) <= KEPT).all()):
            found.append(name.rpartition(".")[0])
    return list(dict.fromkeys(found))


def _weights(model: nn.Module, sparsity: str) -> tuple[dict[str, nn.Parameter], dict[str, str]]:
    """The weights that can be made sparse, by name, each once; and why those of other layers cannot."""
    found: dict[str, nn.Parameter] = {}
    left: dict[str, str] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        for attribute in _attributes(module):
            weight = module._parameters.get(attribute)
            if weight is None:
                if attribute == "weight":
                    left[name] = "its weights are computed from other parameters"
            elif id(weight) not in seen:
                seen.add(id(weight))
                if why := _unfit(module, weight, sparsity):
                    left[name] = why
                else:
                    found[f"{name}.{attribute}" if name else attribute] = weight
    return found, left


def _attributes(module: nn.Module) -> tuple[str, ...]:
    if isinstance(module, nn.MultiheadAttention):
        return _PROJECTIONS
    return ("weight",) if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)) else ()


def _unfit(module: nn.Module, weight: Tensor, sparsity: str) -> str:
    """Why these weights cannot be so; empty if they can."""
    if sparsity != "2:4":
        return ""
    if isinstance(module, _TRANSPOSED):
        return "a transposed convolution has no sparse kernels"
    inputs = weight.shape[1]
    return f"{inputs} input channels, no multiple of {GROUP}" if inputs % GROUP else ""


def _groups(weight: Tensor) -> Tensor:
    """The weights [out, in, ...] as [groups, 4], each four in a row along the input channels."""
    return weight.movedim(1, -1).reshape(-1, GROUP)


def _two_four(weight: Tensor) -> Tensor:
    groups = _groups(weight.detach().abs())
    largest = torch.argsort(groups, dim=1, descending=True, stable=True)[:, :KEPT]
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, largest, True)
    moved = weight.movedim(1, -1)
    return mask.reshape(moved.shape).movedim(-1, 1).contiguous()


def _smallest(weight: Tensor, ratio: float) -> float:
    """The magnitude up to which ``ratio`` of the weights lie; below all of them where that is none."""
    count = min(round(ratio * weight.numel()), weight.numel() - 1)
    return float(weight.detach().abs().flatten().kthvalue(count).values) if count > 0 else -1.0


def _above(weight: Tensor, threshold: float) -> Tensor:
    return weight.detach().abs() > threshold


def _few(left: Mapping[str, str]) -> str:
    named = [f"{name!r} ({why})" for name, why in list(left.items())[:3]]
    return ", ".join(named) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
