"""Which tensors of a graph get Q/DQ pairs.

``inputs``: what layers read, and of a residual sum behind a convolution one input: the identity, so that a runtime can
fuse convolution, sum and activation and read the other input in INT8 (NVIDIA's advice for TensorRT).
``kernels``: the outputs of convolutions, residual sums and what follows them too, so that integers pass from kernel to
kernel; an activation function that only clips is left to the quantizer, which clips as well. Outputs of Gemm and MatMul
keep their resolution: the logits are among them. Dense ones come from convolutions: see ``layers.dense_heads``.
``weights``: none, weights alone are quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import msgspec
from onnx import ModelProto, NodeProto

from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization.layers import weight_axis

__all__ = ["Pair", "Placement", "Weights", "narrowed", "place"]

CLIPS = ("Relu", "Clip")
SELECTS = ("MaxPool", "AveragePool", "Flatten", "Reshape")
"""Operators that give values within the range of what they read: their output has its scale."""
FOLLOWERS = (*CLIPS, *SELECTS, "GlobalAveragePool")
"""Operators that stay in INT8 where their input already is."""
_WHOLE = -1
"""Stands for the axis of an activation, which has one scale."""


class Pair(msgspec.Struct, frozen=True, tag="activation"):
    """QuantizeLinear and DequantizeLinear behind an activation.

    ``readers``: the nodes that read it through them, all if there are none here. ``like``: the tensor whose scale and
    zero point it shares, if it has none of its own.
    """

    tensor: str
    readers: tuple[str, ...] = ()
    like: str = ""


class Weights(msgspec.Struct, frozen=True, tag="weights"):
    """DequantizeLinear behind int8 weights, whose output channels lie along ``axis``, for the ``layers``."""

    tensor: str
    axis: int
    layers: tuple[str, ...]


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """What is written, in this order; ``absorbed``: nodes that go, as the quantizer behind them clips as they do."""

    entries: tuple[Pair | Weights, ...] = ()
    absorbed: tuple[str, ...] = ()

    @property
    def pairs(self) -> dict[str, Pair]:
        """Activation → its pair."""
        return {entry.tensor: entry for entry in self.entries if isinstance(entry, Pair)}

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The weights alone."""
        return tuple(entry for entry in self.entries if isinstance(entry, Weights))

    @property
    def own(self) -> list[str]:
        """The activations that have a scale of their own: what to calibrate."""
        return [pair.tensor for pair in self.pairs.values() if not pair.like]


def place(
    model: ModelProto,
    where: Literal["inputs", "kernels", "weights"],
    layers: Sequence[NodeProto],
    skipped: Collection[str] = (),
    left_out: Collection[str] = (),
) -> Placement:
    """The placement for ``layers`` on int8, without the tensors ``skipped`` and for no node ``left_out``."""
    return _PLACES[where](Index(model), layers, skipped, left_out)


def narrowed(placement: Placement, readers: Mapping[str, Collection[str]]) -> Placement:
    """``placement`` with tensors read through their pair by the nodes in ``readers`` alone, where there are some."""
    entries: list[Pair | Weights] = []
    for entry in placement.entries:
        wanted = readers.get(entry.tensor) if isinstance(entry, Pair) else None
        if isinstance(entry, Pair) and wanted:
            left = tuple(name for name in entry.readers if name in wanted)
            entries += [msgspec.structs.replace(entry, readers=left)] if left else []
        else:
            entries.append(entry)
    return msgspec.structs.replace(placement, entries=tuple(entries))


def _inputs(
    index: Index, layers: Sequence[NodeProto], skipped: Collection[str], left_out: Collection[str]
) -> Placement:
    """What layers read, and the identity of residual sums."""
    readers: dict[str, dict[str, None]] = {}
    sums, chosen = _residuals(index, layers), {node.output[0] for node in layers}
    for node in index.model.graph.node:
        out = node.output[0]
        if out in chosen:
            readers.setdefault(node.input[0], {})[node.name] = None
        elif out in sums and node.name not in left_out:
            readers.setdefault(sums[out], {})[node.name] = None
    pairs = [Pair(tensor, tuple(names)) for tensor, names in readers.items() if tensor not in skipped]
    return Placement(entries=(*pairs, *_weights(index, layers)))


def _weights(index: Index, layers: Sequence[NodeProto]) -> list[Weights]:
    """Each weight once for each axis, in graph order; weights that several layers share stay shared."""
    readers: dict[tuple[str, int], list[str]] = {}
    for node in layers:
        name = node.input[1]
        axis = weight_axis(node, len(index.initializers[name].dims))
        readers.setdefault((name, axis), []).append(node.name)
    return [Weights(name, axis, tuple(names)) for (name, axis), names in readers.items()]


def _nothing_else(
    index: Index, layers: Sequence[NodeProto], skipped: Collection[str], left_out: Collection[str]
) -> Placement:
    """Weights alone."""
    return Placement(entries=tuple(_weights(index, layers)))


def _kernels(
    index: Index, layers: Sequence[NodeProto], skipped: Collection[str], left_out: Collection[str]
) -> Placement:
    """Everything between integer kernels."""
    walk = _Walk(index, layers, skipped)
    for node in _kernel_nodes(index, layers, left_out):
        walk.visit(node)
    borrowing = [entry for entry in walk.marked.values() if isinstance(entry, Pair) and entry.like]
    own = [entry for entry in walk.marked.values() if entry not in borrowing]
    return Placement(entries=(*own, *borrowing), absorbed=tuple(walk.absorbed))


def _kernel_nodes(index: Index, layers: Sequence[NodeProto], left_out: Collection[str]) -> list[NodeProto]:
    """Layers, residual sums, and what follows them without leaving INT8; in graph order."""
    outputs = {node.output[0] for node in layers}
    sums = _residuals(index, layers)
    for node in index.model.graph.node:
        follows = node.op_type in FOLLOWERS and node.input[0] in outputs
        if node.name not in left_out and (follows or node.output[0] in sums):
            outputs.add(node.output[0])
    return [node for node in index.model.graph.node if node.output[0] in outputs]


class _Walk:
    """Marks the tensors of one node after the other; what is marked first is written first."""

    def __init__(self, index: Index, layers: Sequence[NodeProto], skipped: Collection[str]) -> None:
        self._index, self._skipped = index, skipped
        self._layers = {node.output[0] for node in layers}
        self._weights = {name: entry for entry in _weights(index, layers) for name in entry.layers}
        self._ends = {value.name for value in (*index.model.graph.input, *index.model.graph.output)}
        self.marked: dict[tuple[str, int], Pair | Weights] = {}
        self.absorbed: list[str] = []

    def visit(self, node: NodeProto) -> None:
        """Mark what ``node`` reads and gives."""
        if node.output[0] in self._layers:
            self._layer(node)
        elif node.op_type in CLIPS:
            self._clip(node)
        elif node.op_type in SELECTS:
            self._select(node)
        else:
            for name in (*node.input, *node.output):
                self._mark(name)

    def _layer(self, node: NodeProto) -> None:
        self._mark(node.input[0])
        if node.op_type == "Conv":
            self._mark(node.output[0])
        weights = self._weights[node.name]
        self.marked[weights.tensor, weights.axis] = weights

    def _clip(self, node: NodeProto) -> None:
        before = node.input[0]
        if not self._is_marked(before):
            return
        alone = len(self._index.readers(before)) == 1 and before not in self._ends
        if alone and node.output[0] not in self._skipped:
            del self.marked[before, _WHOLE]
            self.absorbed.append(node.name)
        self._mark(node.output[0])

    def _select(self, node: NodeProto) -> None:
        if self._is_marked(node.input[0]) and node.output[0] not in self._skipped:
            self.marked[node.output[0], _WHOLE] = Pair(node.output[0], like=node.input[0])

    def _is_marked(self, name: str) -> bool:
        return (name, _WHOLE) in self.marked

    def _mark(self, name: str) -> None:
        if name not in self._skipped:
            self.marked.setdefault((name, _WHOLE), Pair(name))


def _residuals(index: Index, layers: Sequence[NodeProto]) -> dict[str, str]:
    """Output of a residual sum → the tensor that is its identity, for sums fed by a convolution of ``layers``.

    Where both inputs come from convolutions, the one with fewer nodes before it is the shortcut and plays the identity;
    of two with as many, the second input does.
    """
    convolutions = {node.output[0] for node in layers if node.op_type == "Conv"}
    depth = _depths(index)
    identities = {}
    for node in index.model.graph.node:
        if node.op_type != "Add" or any(name in index.initializers for name in node.input):
            continue
        inputs = list(node.input)
        fusable = [n for n in inputs if n in convolutions and len(index.readers(n)) == 1 and inputs.count(n) == 1]
        if fusable:
            main = max(fusable, key=lambda name: depth[name])  # the first of equals
            identities[node.output[0]] = inputs[1 - inputs.index(main)]
    return identities


def _depths(index: Index) -> dict[str, int]:
    """Tensor → the number of nodes on the longest way to it."""
    depth: dict[str, int] = {}
    for node in index.model.graph.node:
        here = 1 + max((depth.get(name, 0) for name in node.input), default=0)
        depth.update((name, here) for name in node.output)
    return depth


_Place = Callable[[Index, Sequence[NodeProto], Collection[str], Collection[str]], Placement]
_PLACES: Mapping[str, _Place] = {"inputs": _inputs, "kernels": _kernels, "weights": _nothing_else}
