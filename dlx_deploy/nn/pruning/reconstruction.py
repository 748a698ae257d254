"""Weights that stay fitted anew, so that their layer answers as nearly as it can what it did with those that went.

He, Zhang and Sun 2017 (arXiv 1707.06168), the second step, and for single weights as Frantar and Alistarh 2022 (arXiv
2208.11580): linear least squares on samples. Every layer is fitted by what the whole network gives it, so one pass over
the samples serves all, and of these only second moments are kept. A fit is taken where it is better on samples that it
has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlx_deploy.nn.training.batches import Batch
from dlx_deploy.nn.weights.attention import operation_by_operation

__all__ = ["Reader", "reconstruct", "refit"]

_WIDEST = 4608
"""Inputs of a fit at most (3 x 3 of 512 channels): its matrix has the square of that."""
_PLACES = 256
"""Places of an image at most that a convolution is fitted at."""
_RIDGE = 1e-3
"""Of the mean second moment: inputs that are nearly the same otherwise get huge weights of opposite signs."""
_STEPS = 50
"""Of conjugate gradients: after a few dozen the error hardly falls any more."""
_HELD_OUT = 4
"""Every fourth batch only judges."""


@dataclass(frozen=True)
class Reader:
    """Of a layer's inputs and outputs, bool[C_in] and bool[C_out]: which of them stay."""

    read: Tensor
    made: Tensor


@dataclass
class _Moments:
    """Sums of products of a layer's inputs, float64[features, features]: to fit by, and to judge by."""

    fit: Tensor | float = 0.0
    judge: Tensor | float = 0.0


@dataclass
class _Watch:
    """What the hooks of one pass collect."""

    moments: dict[str, _Moments] = field(default_factory=dict)
    judges: bool = False

    def add(self, name: str, seen: Tensor) -> None:
        """``seen``: float32[rows, features]."""
        mine, product = self.moments.setdefault(name, _Moments()), (seen.T @ seen).double()
        if self.judges:
            mine.judge = mine.judge + product
        else:
            mine.fit = mine.fit + product


def reconstruct(
    model: nn.Module, pruned: nn.Module, readers: Mapping[str, Reader], batches: Iterable[Batch]
) -> dict[str, float]:
    """Change the weights of ``pruned``, which is ``model`` without some channels, where that brings it nearer.

    ``readers``: by name the layers that read what was removed. Gives back of each layer that was fitted how much of the
    squared error of its outputs is left, 0..1, on batches that it was not fitted by. Left alone: grouped and transposed
    convolutions, those that pad otherwise than with zeros, very wide layers, and those that are not called as modules.
    """
    wanted = {}
    for name in _fitting(model, readers):
        weight, reader = model.get_parameter(f"{name}.weight").detach()[readers[name].made], readers[name]
        wanted[name] = weight, reader.read.view(1, -1, *[1] * (weight.ndim - 2)).expand_as(weight)
    fitted = _fitted(model, wanted, batches)
    for name, (weight, _) in fitted.items():
        with torch.no_grad():
            pruned.get_parameter(f"{name}.weight").copy_(weight[:, readers[name].read])
    return {name: share for name, (_, share) in fitted.items()}


def refit(model: nn.Module, kept: Mapping[str, Tensor], batches: Iterable[Batch]) -> dict[str, float]:
    """The same where single weights of ``model`` are to be zero, in place; the others too are changed.

    ``kept``: by the parameter's name, bool of its shape, which weights stay.
    """
    layers = {name.removesuffix(".weight"): mask for name, mask in kept.items() if name.endswith(".weight")}
    wanted = {n: (model.get_parameter(f"{n}.weight").detach(), layers[n]) for n in _fitting(model, layers)}
    fitted = _fitted(model, wanted, batches)
    for name, (weight, _) in fitted.items():
        with torch.no_grad():
            model.get_parameter(f"{name}.weight").copy_(weight)
    return {name: share for name, (_, share) in fitted.items()}


def _fitted(
    model: nn.Module, wanted: Mapping[str, tuple[Tensor, Tensor]], batches: Iterable[Batch]
) -> dict[str, tuple[Tensor, float]]:
    """By layer, of its weights and which of them stay: weights that come nearer, and the share of the error left."""
    found = {}
    for name, moments in _watched(model, wanted, batches).items():
        weight, mask = (tensor.flatten(1).double() for tensor in wanted[name])
        if isinstance(moments.fit, Tensor) and isinstance(moments.judge, Tensor):
            fitted = _nearest(weight, mask, moments.fit)
            before = _error(weight * mask - weight, moments.judge)
            after = _error(fitted - weight, moments.judge)
            if after < before:  # not so where it is no number
                found[name] = fitted.reshape(wanted[name][0].shape), after / before
    return found


def _nearest(weight: Tensor, mask: Tensor, moments: Tensor) -> Tensor:
    """The weights float64[outputs, features], zero outside ``mask``, whose outputs are nearest to those of ``weight``.

    Conjugate gradients, every row by itself, preconditioned by the diagonal.
    """
    diagonal = moments.diagonal()
    ridge = _RIDGE * float(diagonal.mean())
    scale = 1 / (diagonal + ridge)
    fitted = weight * mask
    residual = ((weight - fitted) @ moments) * mask  # the ridge holds to the weights as they are
    ahead = residual * scale
    direction, size = ahead, (residual * ahead).sum(1, keepdim=True)
    for _ in range(_STEPS):
        bent = (direction @ moments + ridge * direction) * mask
        step = size / (direction * bent).sum(1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
        fitted, residual = fitted + step * direction, residual - step * bent
        ahead = residual * scale
        size, last = (residual * ahead).sum(1, keepdim=True), size
        direction = ahead + size / last.clamp_min(torch.finfo(size.dtype).tiny) * direction
    return fitted


def _error(off: Tensor, moments: Tensor) -> float:
    """The sum of squares of what weights that are ``off`` by so much answer otherwise."""
    return float(((off @ moments) * off).sum())


def _watched(model: nn.Module, names: Iterable[str], batches: Iterable[Batch]) -> dict[str, _Moments]:
    watch, training = _Watch(), model.training
    with torch.no_grad(), operation_by_operation(), _hooked({name: model.get_submodule(name) for name in names}, watch):
        model.eval()
        for index, batch in enumerate(batches):
            watch.judges = index % _HELD_OUT == _HELD_OUT - 1
            model(batch.inputs)
    model.train(training)
    return watch.moments


@contextmanager
def _hooked(layers: Mapping[str, nn.Module], watch: _Watch) -> Iterator[None]:
    def watcher(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor]], None]:
        return lambda module, inputs, named: watch.add(name, _seen(module, *inputs, **named))

    handles = [module.register_forward_pre_hook(watcher(name), with_kwargs=True) for name, module in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _seen(module: nn.Module, input: Tensor) -> Tensor:
    """float32[rows, features]: what each application of the weights reads, features as the weights have them.

    ``input`` is called as it is in the layers, for networks that name it.
    """
    if not isinstance(module, nn.Conv2d):
        return input.flatten(0, -2).float()
    assert not isinstance(module.padding, str)
    sizes = zip(input.shape[2:], module.kernel_size, module.dilation, module.padding, module.stride, strict=True)
    counts = [(size + 2 * pad - apart * (kernel - 1) - 1) // step + 1 for size, kernel, apart, pad, step in sizes]
    sparser = math.ceil(math.sqrt(math.prod(counts) / _PLACES))
    stride = tuple(step * sparser for step in module.stride)
    patches = F.unfold(input.float(), module.kernel_size, module.dilation, module.padding, stride)
    return patches.transpose(1, 2).flatten(0, 1)  # [N, features, places] before


def _fitting(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Those of the layers that can be fitted."""
    return [name for name in names if _fits(model.get_submodule(name))]


def _fits(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        zeros = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return zeros and module.groups == 1 and math.prod(module.weight.shape[1:]) <= _WIDEST
    return isinstance(module, nn.Linear) and module.in_features <= _WIDEST
