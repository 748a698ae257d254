"""How much noise each layer of a compressed graph has, and how much of it is its own.

The ratio of signal to noise at a layer's output (SQNR) holds what all layers before it have added too. So each layer is
also run alone, on what it reads in floating point: what it adds itself (both errors are those of ONNX Runtime's
debugger of quantization: ``xmodel_err`` and ``qdq_err``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from dlx_deploy.graph.comparison.pairing import LayerPair
from dlx_deploy.graph.comparison.tapped import Tap, parts_of, row_tensors
from dlx_deploy.graph.model import Index, TensorInfo, batch_size, load
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.untyped import Array

__all__ = ["CAP_DB", "LayerNoise", "layer_noise", "sqnr_db"]

CAP_DB = 200.0
"""Stands for no noise at all, with a minus for no signal, or no numbers: JSON has no infinities."""


@dataclass(frozen=True)
class LayerNoise:
    """In dB, -200 to 200. ``sqnr_db``: at the layer's output; ``own_sqnr_db``: of the layer alone, ``None`` where it
    cannot be run so. ``None`` both where the output has no row for each sample."""

    layer: LayerPair
    sqnr_db: float | None
    own_sqnr_db: float | None


@dataclass
class _Power:
    """Sums of squares, over all samples so far."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, plain: Array, seen: Array) -> None:
        exact = plain.astype(np.float64)
        self.signal += float(np.square(exact).sum())
        with np.errstate(over="ignore", invalid="ignore"):
            self.noise += float(np.square(seen.astype(np.float64) - exact).sum())

    @property
    def db(self) -> float:
        if not self.noise:
            return CAP_DB
        if not math.isfinite(self.noise) or self.signal <= 0:
            return -CAP_DB
        return round(max(min(10 * math.log10(self.signal / self.noise), CAP_DB), -CAP_DB), 3)


def sqnr_db(plain: Array, seen: Array) -> float:
    """The power of ``plain`` over that of what ``seen`` differs by, in dB, -200 to 200."""
    power = _Power()
    power.add(plain, seen)
    return power.db


def layer_noise(
    reference: ModelProto,
    written: ModelProto,
    layers: Sequence[LayerPair],
    samples: Samples,
    exact: bool,
    progress: Progress = silent,
) -> list[LayerNoise]:
    """Of each of ``layers``, over ``samples``, some rows at a time.

    Raises:
        StageFailed: ONNX Runtime cannot run a graph with these tensors as outputs.
    """
    ours, theirs = row_tensors(reference), row_tensors(written)
    seen = [layer for layer in layers if _comparable(layer, ours, theirs)]
    if not seen:
        return [LayerNoise(layer, None, None) for layer in layers]
    alone = _Alone(written, [layer for layer in seen if layer.plain.input[0] in ours], exact)
    wanted = list(dict.fromkeys(name for layer in seen for name in (layer.plain.output[0], *alone.needs(layer))))
    plain, packed = Tap(reference, wanted, exact=False), Tap(written, _given(seen), exact)
    row_bytes = 4 * sum(ours[n].elements for n in wanted) + 8 * sum(theirs[n].elements for n in _given(seen))
    fixed = batch_size(reference) or batch_size(written)
    at_end, own, done = {x.name: _Power() for x in seen}, {name: _Power() for name in alone.layers}, 0
    for part, rows in parts_of(samples, row_bytes, fixed):
        progress(done, len(samples), f"{len(seen)} layers on {len(samples)} samples")
        values = plain.run(part.fitted(plain.shapes).feed())
        results = packed.run(part.fitted(packed.shapes).feed())
        for layer in seen:
            at_end[layer.name].add(values[layer.plain.output[0]][:rows], results[layer.gives][:rows])
        for name, array in alone.run(values).items():
            own[name].add(values[alone.layers[name].plain.output[0]][:rows], array[:rows])
        done += rows
    found = {x.name: LayerNoise(x, at_end[x.name].db, own[x.name].db if x.name in own else None) for x in seen}
    return [found.get(layer.name, LayerNoise(layer, None, None)) for layer in layers]


def _given(layers: Sequence[LayerPair]) -> list[str]:
    return list(dict.fromkeys(layer.gives for layer in layers))


def _comparable(layer: LayerPair, ours: dict[str, TensorInfo], theirs: dict[str, TensorInfo]) -> bool:
    """Whether both have an output with a row for each sample, of the same shape."""
    plain, written = ours.get(layer.plain.output[0]), theirs.get(layer.gives)
    return plain is not None and written is not None and plain.shape == written.shape


class _Alone:
    """Compressed layers side by side, each on what it reads in floating point."""

    def __init__(self, written: ModelProto, layers: Sequence[LayerPair], exact: bool) -> None:
        index = Index(written)
        types = {name: info.dtype for name, info in row_tensors(written).items()}
        slices = {layer.name: _slice(index, layer) for layer in layers if layer.is_compressed}
        self.layers = {layer.name: layer for layer in layers if slices.get(layer.name)}
        self._tap: Tap | None = None
        if self.layers:
            model = _side_by_side(written, {n: (self.layers[n], slices[n] or []) for n in self.layers}, types)
            self._tap = Tap(model, [f"{name}:alone" for name in self.layers], exact)

    def needs(self, layer: LayerPair) -> list[str]:
        """The tensors of the graph in floating point that ``layer`` is run on."""
        return [layer.plain.input[0]] if layer.name in self.layers else []

    def run(self, values: Arrays) -> Arrays:
        """Layer → its output."""
        if self._tap is None:
            return {}
        feeds = {f"{name}:in": values[layer.plain.input[0]] for name, layer in self.layers.items()}
        given = self._tap.run({name: np.ascontiguousarray(array, np.float32) for name, array in feeds.items()})
        return {name: given[f"{name}:alone"] for name in self.layers}


def _slice(index: Index, layer: LayerPair) -> list[NodeProto] | None:
    """The nodes from what the layer reads to what it gives, in no order; ``None`` where they read another tensor."""
    found: dict[int, NodeProto] = {}
    waiting = [layer.gives]
    while waiting:
        name = waiting.pop()
        if not name or name == layer.reads or name in index.initializers:
            continue
        node = index.producer.get(name)
        if node is None:
            return None
        if id(node) not in found:
            found[id(node)] = node
            waiting += node.input
    return list(found.values())


def _side_by_side(
    written: ModelProto, parts: dict[str, tuple[LayerPair, list[NodeProto]]], types: dict[str, int]
) -> ModelProto:
    """The slices as one graph, with inputs of their own in float32, ``LAYER:in``."""
    model = load(written)
    constants = {tensor.name for tensor in model.graph.initializer}
    order = {node.output[0]: place for place, node in enumerate(written.graph.node)}
    nodes, inputs = list[NodeProto](), list[ValueInfoProto]()
    for number, (name, (layer, slice_)) in enumerate(parts.items()):
        given = f"{name}:in"
        inputs.append(helper.make_tensor_value_info(given, TensorProto.FLOAT, None))
        read = given
        if types.get(layer.reads, TensorProto.FLOAT) != TensorProto.FLOAT:
            read = f"{name}:cast"
            nodes.append(helper.make_node("Cast", [given], [read], name=read, to=types[layer.reads]))
        for node in sorted(slice_, key=lambda node: order[node.output[0]]):
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{number}/{node.name}"
            copy.input[:] = [_renamed(x, number, layer, read, constants) for x in node.input]
            copy.output[:] = [f"{name}:alone" if x == layer.gives else f"{number}/{x}" for x in node.output]
            nodes.append(copy)
    del model.graph.node[:], model.graph.input[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.input.extend(inputs)
    return model


def _renamed(name: str, number: int, layer: LayerPair, read: str, constants: set[str]) -> str:
    if name == layer.reads:
        return read
    return name if not name or name in constants else f"{number}/{name}"
