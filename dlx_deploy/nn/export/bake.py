"""Parametrized weights as plain ones: what computes a weight at every forward pass is computed once."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from dlx_deploy.nn.models.copies import copied

__all__ = ["baked"]


def baked(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in evaluation mode, float32 on the CPU, whose weights are parameters and nothing else.

    Parametrizations (weight and spectral norm, and a user's own), the older hooks of the same names and pruning masks
    are replaced by the weights that they give. ``model`` is left as it was.
    """
    network = copied(model).float().cpu().eval()
    for module in network.modules():
        _bake_parametrizations(module)
        _bake_hooks(module)
    return network


def _bake_parametrizations(module: nn.Module) -> None:
    if parametrize.is_parametrized(module):
        kind = type(module)
        # A copy shares the class that torch made for the original, and removal takes the weight off that class.
        module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))
        for name in list(module.parametrizations):  # type: ignore[arg-type]  # a ModuleDict, by is_parametrized
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _bake_hooks(module: nn.Module) -> None:
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(module, hook.name)
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
