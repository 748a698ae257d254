"""How much channels matter: by the size of their weights, or by what the loss would change without them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.models.outputs import floats
from dlx_deploy.nn.pruning.layers import groups_of, made_axis, reads, width
from dlx_deploy.nn.pruning.trace import Labels, Layer
from dlx_deploy.nn.training.batches import Batch
from dlx_deploy.nn.training.losses import LossFn

__all__ = ["changes", "losses_by_weight", "magnitudes"]


def magnitudes(layers: Iterable[Layer], class_of: Labels) -> NDArray[np.float64]:
    """float64[classes]: the sum of the squares of all weights that go with each class."""
    power = np.zeros(len(class_of))
    for layer in layers:
        weight = getattr(layer.module, "weight", None)
        if not isinstance(weight, Tensor) or not layer.inputs:
            continue
        square = weight.detach().double().pow(2)
        if made_axis(layer.module):
            square = square.transpose(0, 1)
        made = layer.inputs[0] if layer.outputs is None else layer.outputs
        np.add.at(power, class_of[made], square.flatten(1).sum(1) if square.ndim > 1 else square)
        if reads(layer):
            columns = square.transpose(0, 1).flatten(1).sum(1).numpy()
            np.add.at(power, class_of[layer.inputs[0]], np.tile(columns, groups_of(layer)))
    return power


def changes(layers: Iterable[Layer], class_of: Labels, products: Iterable[Mapping[str, Tensor]]) -> NDArray[np.float64]:
    """float64[classes]: the square of what the loss changes, to first order, when nothing reads a class any more.

    Molchanov et al. 2019 (arXiv 1906.10771), equation 8: the sum of weight times gradient, squared, averaged over
    batches. The weights are those that *read* the channels, as it is these that ``silence`` sets to zero.
    ``products``: of each batch weight times gradient by the parameter's name, as ``losses_by_weight`` gives them.
    """
    readers = [layer for layer in layers if reads(layer)]
    power, batches = np.zeros(len(class_of)), 0
    for product in products:
        change = np.zeros(len(class_of))
        for layer in readers:
            weight = product.get(f"{layer.name}.weight")
            if weight is not None:
                columns = weight.double().movedim(1 - made_axis(layer.module), 0).flatten(1).sum(1).numpy()
                np.add.at(change, class_of[layer.inputs[0][: width(layer)]], columns)
        power += change**2
        batches += 1
    return power / max(batches, 1)


def losses_by_weight(model: nn.Module, batches: Iterable[Batch], loss: LossFn) -> Iterator[dict[str, Tensor]]:
    """Of each batch, for every parameter that it rests on: weight times gradient of the mean loss, elementwise.

    ``model`` stays as it is; it is run as in evaluation, so that statistics of one batch do not decide.

    Raises:
        StageFailed: a loss or a gradient is not finite.
    """
    learner = copy.deepcopy(model).eval().requires_grad_(True)
    named = dict(learner.named_parameters())
    for batch in batches:
        with torch.enable_grad():
            value = loss(floats(learner(batch.inputs)), batch).mean()
            gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        found = {name: (named[name] * g).detach() for name, g in zip(named, gradients, strict=True) if g is not None}
        wrong = [name for name, product in found.items() if not bool(product.isfinite().all())]
        if wrong or not bool(value.isfinite()):
            where = f"the gradient of {wrong[0]!r}" if wrong else f"the loss ({float(value):.4g})"
            raise StageFailed(
                f"prune: {where} is not finite, so importance by gradients cannot be had; set prune.importance = 'l2'"
            )
        yield found
