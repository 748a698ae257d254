"""Which tensors of a graph get Q/DQ pairs.

``inputs``: what layers read, and of a residual sum behind a convolution one input: the identity, so that a runtime can
fuse convolution, sum and activation and read the other input in INT8 (NVIDIA's advice for TensorRT).
``kernels``: the outputs of convolutions, residual sums and what follows them too, so that integers pass from kernel to
kernel; an activation function that only clips is left to the quantizer, which clips as well. Outputs of Gemm and MatMul
keep their resolution: the logits are among them. Dense ones come from convolutions: see ``layers.dense_heads``.
``weights``: none, weights alone are quantized.
Where integer kernels were timed (``targets.kernels``), the operators that gain by them pass integers on as well, as
long as all that they read are integers and a layer reads them in the end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import msgspec
from onnx import ModelProto, NodeProto

from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization.gates import GATES
from dlx_deploy.graph.quantization.integer_chains import CLIPS, MOVES, SELECTS, activations, integer_nodes, timed_as
from dlx_deploy.graph.quantization.layers import weight_axis
from dlx_deploy.graph.quantization.residuals import residuals
from dlx_deploy.targets.kernels import NOT_MEASURED, IntegerKernels

__all__ = ["Pair", "Placement", "Weights", "narrowed", "place"]

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
    """What is written, in this order; ``absorbed``: nodes that go, as the quantizer behind them clips as they do.

    ``gates``: nodes that become sums and products on integers (``quantization.gates``).
    """

    entries: tuple[Pair | Weights, ...] = ()
    absorbed: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()

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
    kernels: IntegerKernels = NOT_MEASURED,
) -> Placement:
    """The placement for ``layers`` on int8, without the tensors ``skipped`` and for no node ``left_out``.

    ``kernels``: which other operators pass integers on, where integers pass from kernel to kernel.
    """
    index = Index(model)
    if where == "inputs":
        return _inputs(index, layers, skipped, left_out)
    if where == "weights":
        return Placement(entries=tuple(_weights(index, layers)))
    return _kernels(index, layers, skipped, left_out, kernels)


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
    sums, chosen = residuals(index, layers), {node.output[0] for node in layers}
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


def _kernels(
    index: Index,
    layers: Sequence[NodeProto],
    skipped: Collection[str],
    left_out: Collection[str],
    kernels: IntegerKernels,
) -> Placement:
    """Everything between integer kernels."""
    walk = _Walk(index, layers, skipped)
    for node in integer_nodes(index, layers, left_out, kernels):
        walk.visit(node)
    borrowing = [entry for entry in walk.marked.values() if isinstance(entry, Pair) and entry.like]
    own = [entry for entry in walk.marked.values() if entry not in borrowing]
    return Placement(entries=(*own, *borrowing), absorbed=tuple(walk.absorbed), gates=tuple(walk.gates))


class _Walk:
    """Marks the tensors of one node after the other; what is marked first is written first."""

    def __init__(self, index: Index, layers: Sequence[NodeProto], skipped: Collection[str]) -> None:
        self._index, self._skipped = index, set(skipped)
        self._layers = {node.output[0] for node in layers}
        self._weights = {name: entry for entry in _weights(index, layers) for name in entry.layers}
        self._ends = {value.name for value in (*index.model.graph.input, *index.model.graph.output)}
        self.marked: dict[tuple[str, int], Pair | Weights] = {}
        self.absorbed: list[str] = []
        self.gates: list[str] = []

    def visit(self, node: NodeProto) -> None:
        """Mark what ``node`` reads and gives."""
        if node.output[0] in self._layers:
            self._layer(node)
        elif node.op_type in CLIPS:
            self._clip(node)
        elif node.op_type in SELECTS or timed_as(node) in MOVES:
            self._select(node)
        else:
            for name in (*activations(node), *node.output):
                self._mark(name)
            if node.op_type in GATES and not self._skipped & {node.input[0], node.output[0]}:
                self.gates.append(node.name)

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
        outputs = node.output if node.op_type == "Split" else node.output[:1]
        for name in outputs if self._is_marked(node.input[0]) else ():
            if name not in self._skipped:
                self.marked[name, _WHOLE] = Pair(name, like=node.input[0])

    def _is_marked(self, name: str) -> bool:
        return (name, _WHOLE) in self.marked

    def _mark(self, name: str) -> None:
        if name not in self._skipped:
            self.marked.setdefault((name, _WHOLE), Pair(name))
