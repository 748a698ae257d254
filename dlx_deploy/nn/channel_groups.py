"""Which channels can be removed together, what that takes out of each layer, and the removal itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlx_deploy.nn.channel_trace import Labels, Layer, Trace

__all__ = ["Group", "Network", "Plan", "remove", "resolve", "silence"]

Kept = NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Layers whose output channels go together: K classes of them, each some channels of every layer.

    ``step`` classes at a time leave channel counts that are multiples of ``round_to``. ``trunk``: a residual sum ties
    these channels together.
    """

    layers: tuple[str, ...]
    classes: Labels  # int64[K], by their first place in the first layer
    step: int
    trunk: bool


Plan = dict[str, Labels]
"""By a group's first layer: which of its classes go."""


@dataclass(frozen=True)
class Network:
    """What a run told of a network: its layers, the class of each label, and the groups.

    ``left`` says of every layer whose outputs must stay why they must.
    """

    layers: dict[str, Layer]
    class_of: Labels  # int64[labels + 1]; the last is for what holds no channel
    groups: tuple[Group, ...]
    left: dict[str, str]
    power: NDArray[np.float64]  # [classes]: the sum of the squares of the weights that go with each
    batch: int

    def kept(self, plan: Plan) -> Kept:
        """bool[labels + 1]: which labels stay under ``plan``."""
        gone = np.concatenate([np.zeros(0, dtype=np.int64), *plan.values()])
        return ~np.isin(self.class_of, gone)

    def macs_removed(self, plan: Plan) -> int:
        """How many multiply-accumulates of one sample ``plan`` saves."""
        kept = self.kept(plan)
        whole = np.ones_like(kept)
        saved = [layer.rows * (_numel(layer, whole) - _numel(layer, kept)) for layer in self._weighted()]
        return sum(saved) // self.batch

    def strength(self, group: Group) -> NDArray[np.float64]:
        """float64[K]: the sum of the squares of all weights that go with each class of ``group``."""
        found: NDArray[np.float64] = self.power[group.classes]
        return found

    def _weighted(self) -> list[Layer]:
        return [layer for layer in self.layers.values() if layer.outputs is not None and layer.inputs]


def resolve(trace: Trace, round_to: int, batch: int) -> Network:
    """The groups of the network that ``trace`` followed, and what is left alone.

    A group is safe to prune if none of its channels is fixed, a layer reads each of them, and every layer in it has
    the same number of channels in each class.
    """
    one = [np.zeros(0, dtype=np.int64), *(a for a, _ in trace.ties)]
    other = [np.zeros(0, dtype=np.int64), *(b for _, b in trace.ties)]
    class_of = _components(trace.labels + 1, np.concatenate(one), np.concatenate(other))
    makers = [layer for layer in trace.layers.values() if layer.outputs is not None]
    whole = [np.broadcast_arrays(made, made[:1]) for layer in makers if (made := layer.outputs) is not None]
    united = _components(
        len(class_of),
        np.concatenate([np.arange(len(class_of)), *(a for a, _ in whole)]),
        np.concatenate([class_of, *(b for _, b in whole)]),
    )
    why = _fixed(trace, united)
    read = np.zeros(len(class_of), dtype=bool)
    for layer in trace.layers.values():
        if _reads(layer):
            read[class_of[layer.inputs[0]]] = True
    trunk = {int(c) for labels in trace.sums for c in united[labels].ravel()}
    groups, left = [], {}
    for component in dict.fromkeys(int(united[layer.outputs[0]]) for layer in makers if layer.outputs is not None):
        mine = [layer for layer in makers if layer.outputs is not None and united[layer.outputs[0]] == component]
        classes = _classes(mine[0], class_of)
        reason = why.get(component) or _unsafe(mine, class_of, classes, read)
        if reason:
            left.update({layer.name: reason for layer in mine})
            continue
        per = [len(layer.outputs) // len(classes) for layer in mine if layer.outputs is not None]
        step = math.lcm(*(round_to // math.gcd(round_to, m) for m in per))
        groups.append(Group(tuple(layer.name for layer in mine), classes, step, component in trunk))
    return Network(trace.layers, class_of, tuple(groups), left, _power(trace.layers.values(), class_of), batch)


def _power(layers: Iterable[Layer], class_of: Labels) -> NDArray[np.float64]:
    power = np.zeros(len(class_of))
    for layer in layers:
        weight = getattr(layer.module, "weight", None)
        if not isinstance(weight, Tensor) or not layer.inputs:
            continue
        square = weight.detach().double().pow(2)
        made = layer.inputs[0] if layer.outputs is None else layer.outputs
        np.add.at(power, class_of[made], square.flatten(1).sum(1) if square.ndim > 1 else square)
        if _reads(layer):
            columns = square.transpose(0, 1).flatten(1).sum(1).numpy()
            np.add.at(power, class_of[layer.inputs[0]], np.tile(columns, _groups(layer)))
    return power


def _classes(layer: Layer, class_of: Labels) -> Labels:
    """The classes of a layer's outputs, in the order of their first channels."""
    found, first = np.unique(class_of[layer.outputs], return_index=True)
    return found[np.argsort(first)]


def _fixed(trace: Trace, united: Labels) -> dict[int, str]:
    """By component: why its channels must stay."""
    why: dict[int, str] = {}
    for fixed in trace.fixed:
        for component in np.unique(united[fixed.labels]):
            why.setdefault(int(component), fixed.why)
    for name, reason in trace.stays.items():
        layer = trace.layers.get(name)
        for labels in [] if layer is None else [layer.outputs, *layer.inputs]:
            for component in np.unique(united[labels]) if labels is not None else ():
                why.setdefault(int(component), reason)
    why.setdefault(int(united[-1]), "an image, a constant or padding lies at the same place")
    return why


def _unsafe(layers: list[Layer], class_of: Labels, classes: Labels, read: Kept) -> str:
    """Why these layers cannot lose channels together, if so."""
    if not read[classes].all():
        return "no convolution or linear layer reads its channels"
    for layer in layers:
        found, counts = np.unique(class_of[layer.outputs], return_counts=True)
        if len(found) != len(classes) or len(set(counts.tolist())) != 1:
            return "layers of different widths are tied together"
    return ""


def remove(model: nn.Module, network: Network, plan: Plan) -> None:
    """Take the channels of ``plan`` out of ``model``, which has the layers of ``network``."""
    kept, modules = network.kept(plan), dict(model.named_modules())
    for layer in network.layers.values():
        module = modules[layer.name]
        if not layer.inputs:
            continue
        read = kept[layer.inputs[0]]
        if layer.outputs is None:
            _cut_all(module, torch.from_numpy(read))
            module.num_features = int(read.sum())
            continue
        made = kept[layer.outputs]
        _cut_all(module, torch.from_numpy(made))
        if _reads(layer):
            _cut(module, "weight", torch.from_numpy(read[: _width(layer)]), 1)
        if isinstance(module, nn.Conv2d):
            module.in_channels, module.out_channels = int(read.sum()), int(made.sum())
            module.groups = module.groups if _reads(layer) else module.in_channels
        elif isinstance(module, nn.Linear):
            module.in_features, module.out_features = int(read.sum()), int(made.sum())


def silence(model: nn.Module, network: Network, plan: Plan) -> None:
    """Make every layer of ``model`` deaf to the channels of ``plan``: zero is the weight of what it reads of them.

    This is what removing them means, exactly, whatever lies between: no weight of any other layer changes.
    """
    kept, modules = network.kept(plan), dict(model.named_modules())
    for layer in network.layers.values():
        if _reads(layer):
            gone = torch.from_numpy(~kept[layer.inputs[0][: _width(layer)]])
            weight = modules[layer.name].weight
            assert isinstance(weight, Tensor)
            with torch.no_grad():
                weight[:, gone] = 0


def _cut_all(module: nn.Module, kept: Tensor) -> None:
    for role in ("weight", "bias", "running_mean", "running_var"):
        _cut(module, role, kept, 0)


def _cut(module: nn.Module, role: str, kept: Tensor, axis: int) -> None:
    old = getattr(module, role, None)
    if not isinstance(old, Tensor) or bool(kept.all()):
        return
    new = old.detach().index_select(axis, kept.nonzero().flatten())
    setattr(module, role, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)


def _groups(layer: Layer) -> int:
    return layer.module.groups if isinstance(layer.module, nn.Conv2d) else 1


def _reads(layer: Layer) -> bool:
    """Whether the layer sums over its inputs: neither a batch normalisation nor a depthwise convolution."""
    if layer.outputs is None or not layer.inputs:
        return False
    return not 1 < _groups(layer) == len(layer.inputs[0])


def _width(layer: Layer) -> int:
    """How many inputs each output reads."""
    return len(layer.inputs[0]) // _groups(layer)


def _numel(layer: Layer, kept: Kept) -> int:
    """How many weights stay."""
    weight = layer.module.weight
    assert isinstance(weight, Tensor)
    assert layer.outputs is not None
    inputs = int(kept[layer.inputs[0][: _width(layer)]].sum()) if _reads(layer) else 1
    return int(kept[layer.outputs].sum()) * inputs * math.prod(weight.shape[2:])


def _components(count: int, one: Labels, other: Labels) -> Labels:
    """int64[count]: for each number the smallest that a chain of pairs (``one``, ``other``) leads to.

    The last number stands for what holds no channel, which is -1 in the pairs.
    """
    one, other = one % count, other % count
    root = np.arange(count, dtype=np.int64)
    while True:
        low = np.minimum(root[one], root[other])
        new = root.copy()
        np.minimum.at(new, root[one], low)
        np.minimum.at(new, root[other], low)
        while not np.array_equal(new[new], new):
            new = new[new]
        if np.array_equal(new, root):
            return root
        root = new
