"""Which channels can be removed together, what that takes out of each layer, and the removal itself."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlx_deploy.nn.pruning.cuts import Cut, components
from dlx_deploy.nn.pruning.importance import magnitudes
from dlx_deploy.nn.pruning.layers import Kept, groups_of, made_axis, numel, parameters, reads, width
from dlx_deploy.nn.pruning.reconstruction import Reader
from dlx_deploy.nn.pruning.trace import Labels, Layer, Trace
from dlx_deploy.nn.weights.heads import set_heads

__all__ = ["Group", "Network", "Plan", "readers", "remove", "resolve", "silence"]


@dataclass(frozen=True)
class Group:
    """Layers whose output channels go together: K classes of them, each some channels of every layer.

    ``step`` classes at a time leave channel counts that are multiples of ``round_to``. ``trunk``: a residual sum ties
    these channels together. Groups of the same ``structure`` are isomorphic: as many classes in layers that are alike.
    """

    name: str  # the first layer's; where several groups share it, with a number
    layers: tuple[str, ...]
    classes: Labels  # int64[K], by their first place in the first layer
    step: int
    trunk: bool
    structure: Hashable = None


Plan = dict[str, Labels]
"""By a group's name: which of its classes go."""


@dataclass(frozen=True)
class Network:
    """What a run told of a network: its layers, the class of each label, and the groups.

    ``left`` says of every layer whose outputs must stay why they must. ``heads`` are the cuts into parts of which
    whole ones go; ``products`` are labels and the multiply-accumulates of the whole batch that go with each.
    """

    layers: dict[str, Layer]
    class_of: Labels  # int64[labels + 1]; the last is for what holds no channel
    groups: tuple[Group, ...]
    left: dict[str, str]
    power: NDArray[np.float64]  # [classes]: how much each matters
    batch: int
    heads: tuple[Cut, ...] = ()
    products: tuple[tuple[Labels, int], ...] = ()

    def kept(self, plan: Plan) -> Kept:
        """bool[labels + 1]: which labels stay under ``plan``."""
        gone = np.concatenate([np.zeros(0, dtype=np.int64), *plan.values()])
        return ~np.isin(self.class_of, gone)

    def macs_removed(self, plan: Plan) -> int:
        """How many multiply-accumulates of one sample ``plan`` saves."""
        kept = self.kept(plan)
        whole = np.ones_like(kept)
        saved = [layer.rows * (numel(layer, whole) - numel(layer, kept)) for layer in self._weighted()]
        saved += [int((~kept[labels]).sum()) * macs for labels, macs in self.products]
        return sum(saved) // self.batch

    def parameters_removed(self, plan: Plan) -> int:
        """How many parameters ``plan`` saves."""
        kept = self.kept(plan)
        whole = np.ones_like(kept)
        used = [layer for layer in self.layers.values() if layer.inputs]
        return sum(parameters(layer, whole) - parameters(layer, kept) for layer in used)

    def heads_left(self, plan: Plan) -> dict[str, int]:
        """By module: how many heads it has under ``plan``, where that takes some."""
        kept = self.kept(plan)
        return {cut.module: left for cut in self.heads if (left := cut.count(kept)) < cut.labels.shape[-2]}

    def smaller(self, plan: Plan) -> list[str]:
        """The layers that lose inputs or outputs under ``plan``."""
        kept = self.kept(plan)
        used = [layer for layer in self.layers.values() if layer.inputs]
        return [layer.name for layer in used if not kept[np.concatenate([layer.inputs[0], _made(layer)])].all()]

    def strength(self, group: Group) -> NDArray[np.float64]:
        """float64[K]: how much each class of ``group`` matters."""
        return np.asarray(self.power[group.classes])

    def _weighted(self) -> list[Layer]:
        return [layer for layer in self.layers.values() if layer.outputs is not None and layer.inputs]


def resolve(trace: Trace, round_to: int, batch: int) -> Network:
    """The groups of the network that ``trace`` followed, and what is left alone.

    Classes that have channels in the same layers, equally many in each, make a group. Of a class that can go none is
    fixed, and some layer reads it.
    """
    class_of = components(trace.labels + 1, trace.ties)
    cuts = [(cut, cut.has_heads(class_of)) for cut in trace.cuts]
    if cuts:
        parts = [pair for cut, heads in cuts for pair in cut.ties(heads)]
        class_of = components(trace.labels + 1, [*trace.ties, *parts])
    places: dict[int, dict[str, int]] = {}  # of each class: how many channels of which layer
    for name, layer in trace.layers.items():
        for label in [] if layer.outputs is None else class_of[layer.outputs].tolist():
            mine = places.setdefault(label, {})
            mine[name] = mine.get(name, 0) + 1
    why = _fixed(trace, class_of)
    alike: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for label in [c for c in places if c not in why]:
        alike.setdefault(tuple(places[label].items()), []).append(label)
    trunk = {int(c) for labels in trace.sums for c in class_of[labels].ravel()}
    groups: list[Group] = []
    for layers, classes in alike.items():
        step = math.lcm(*(round_to // math.gcd(round_to, count) for _, count in layers))
        names = tuple(name for name, _ in layers)
        taken = sum(group.layers[0] == names[0] for group in groups)
        title = names[0] + (f" ({taken + 1})" if taken else "")
        structure = (len(classes), *(_shape(trace.layers[name], count) for name, count in layers))
        groups.append(Group(title, names, np.array(classes), step, not trunk.isdisjoint(classes), structure))
    mixed = {int(c): said.why for said in trace.mixed for c in class_of[said.labels]}
    free = {name for group in groups if len(group.classes) > 1 for name in group.layers}
    left = {}
    for name, layer in trace.layers.items():
        if layer.outputs is not None and name not in free:
            first = int(class_of[layer.outputs[0]])
            left[name] = why.get(first) or mixed.get(first, "its channels only go together")
    power = magnitudes(trace.layers.values(), class_of)
    heads = tuple(cut for cut, heads in cuts if heads)
    return Network(trace.layers, class_of, tuple(groups), left, power, batch, heads, tuple(trace.products))


def _shape(layer: Layer, channels: int) -> Hashable:
    """What is alike of layers that are: their kind, the shape of their weights, and how many channels a class has."""
    weight = layer.module.weight
    assert isinstance(weight, Tensor)
    return type(layer.module).__name__, tuple(weight.shape), groups_of(layer), channels


def _fixed(trace: Trace, class_of: Labels) -> dict[int, str]:
    """Why classes must stay, of those that must."""
    why: dict[int, str] = {}
    for fixed in trace.fixed:
        why.update({int(c): fixed.why for c in class_of[fixed.labels] if int(c) not in why})
    for name, reason in trace.stays.items():
        layer = trace.layers.get(name)
        held = [] if layer is None else [labels for labels in (layer.outputs, *layer.inputs) if labels is not None]
        why.update({int(c): reason for labels in held for c in class_of[labels] if int(c) not in why})
    why.setdefault(int(class_of[-1]), "an image, a constant or padding lies at the same place")
    read = {int(c) for layer in trace.layers.values() if reads(layer) for c in class_of[layer.inputs[0]]}
    unread = set(class_of.tolist()) - read - why.keys()
    return {**why, **dict.fromkeys(unread, "no convolution or linear layer reads its channels")}


def remove(model: nn.Module, network: Network, plan: Plan) -> None:
    """Take the channels of ``plan`` out of ``model``: its tensors are replaced.

    Of the layers of ``network`` it has those that become smaller.
    """
    kept, modules = network.kept(plan), dict(model.named_modules())
    for name in network.smaller(plan):
        layer, module = network.layers[name], modules[name]
        read = kept[layer.inputs[0]]
        if layer.outputs is None:
            _cut_all(module, torch.from_numpy(read))
            module.num_features = int(read.sum())
            continue
        made = kept[layer.outputs]
        _cut_all(module, torch.from_numpy(made))
        if reads(layer):
            _cut(module, "weight", torch.from_numpy(read[: width(layer)]), 1 - made_axis(module))
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.in_channels, module.out_channels = int(read.sum()), int(made.sum())
            module.groups = module.groups if reads(layer) else module.in_channels
        elif isinstance(module, nn.Linear):
            module.in_features, module.out_features = int(read.sum()), int(made.sum())
    for name, heads in network.heads_left(plan).items():
        set_heads(modules[name], heads)


def readers(network: Network, plan: Plan) -> dict[str, Reader]:
    """By name the layers that read channels which ``plan`` takes: which of their inputs and outputs stay."""
    kept = network.kept(plan)
    found = {}
    for layer in network.layers.values():
        if reads(layer) and layer.outputs is not None and not bool(kept[layer.inputs[0]].all()):
            read = torch.from_numpy(kept[layer.inputs[0][: width(layer)]])
            found[layer.name] = Reader(read, torch.from_numpy(kept[layer.outputs]))
    return found


def silence(model: nn.Module, network: Network, plan: Plan) -> None:
    """Make every layer of ``model`` deaf to the channels of ``plan``: zero is the weight of what it reads of them.

    This is what removing them means, exactly, whatever lies between: no weight of any other layer changes.
    """
    kept, modules = network.kept(plan), dict(model.named_modules())
    for layer in network.layers.values():
        if reads(layer):
            gone = torch.from_numpy(~kept[layer.inputs[0][: width(layer)]])
            weight = modules[layer.name].weight
            assert isinstance(weight, Tensor)
            if bool(gone.any()):
                deaf = weight.detach().clone()
                deaf.index_fill_(1 - made_axis(modules[layer.name]), gone.nonzero().flatten(), 0)
                modules[layer.name].weight = nn.Parameter(deaf, weight.requires_grad)


def _cut_all(module: nn.Module, kept: Tensor) -> None:
    _cut(module, "weight", kept, made_axis(module))
    for role in ("bias", "running_mean", "running_var"):
        _cut(module, role, kept, 0)


def _cut(module: nn.Module, role: str, kept: Tensor, axis: int) -> None:
    old = getattr(module, role, None)
    if not isinstance(old, Tensor) or bool(kept.all()):
        return
    new = old.detach().index_select(axis, kept.nonzero().flatten())
    setattr(module, role, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)


def _made(layer: Layer) -> Labels:
    return np.zeros(0, np.int64) if layer.outputs is None else layer.outputs
