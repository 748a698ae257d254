"""A network and its integers as one graph, in which the mean error of each layer is taken back as it appears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, compose, helper, numpy_helper

from dlx_deploy.graph.execution.memory import peak_row_bytes, rows_within
from dlx_deploy.graph.model import Index, infer, input_dims, load, opset, to_bytes
from dlx_deploy.graph.quantization.layers import weight_axis
from dlx_deploy.graph.samples import Samples
from dlx_deploy.progress import Progress
from dlx_deploy.runtime.backends.session import open_session

__all__ = ["mean_errors"]

ROOT, NETWORK, SHARE = "/correction/", "network/", "share"
"""What names of ours begin with; those of the float32 half go on so; the input that says what a batch counts beside all
up to it."""
LARGEST_BATCH = 64
HELD_BYTES = 256 << 20
"""Of the activations of both halves."""
AXES_READ = 18
"""The opset from which ReduceMean reads its axes."""

Floats = NDArray[np.float32]


def mean_errors(
    network: ModelProto, written: ModelProto, layers: Sequence[str], samples: Samples, progress: Progress
) -> Mapping[str, Floats]:
    """Layer → float32[channels]: how much more its output is in ``network`` than in ``written``, in the mean.

    In one pass over ``samples``: what comes behind a layer reads its output with the error added, as far as that is
    known by then. Q/DQ are computed as written.
    """
    root = _unused(network, written)
    found = [_Layer.of(network, written, layer, root) for layer in layers]
    graph = _joint(network, written, found, root)
    shapes = input_dims(network)
    fixed = next(iter(shapes.values()))[0]
    size = fixed or rows_within(_row_bytes(network, written, found), LARGEST_BATCH, HELD_BYTES)
    session = open_session(to_bytes(graph), exact_qdq=True, threads=1, fused=True)
    names, seen = [layer.error for layer in found], 0
    errors = [np.zeros(layer.shape, np.float32) for layer in found]
    for part in samples.batches(size, fill=fixed is not None):
        progress(seen, len(samples), "bias correction")
        count = min(len(part), len(samples) - seen)
        seen += count
        feed = {**part.fitted(shapes).feed(), root + SHARE: np.asarray(count / seen, np.float32)}
        feed |= {layer.so_far: error for layer, error in zip(found, errors, strict=True)}
        errors = session.run(names, feed)
    return {layer: error.reshape(-1) for layer, error in zip(layers, errors, strict=True)}


@dataclass(frozen=True)
class _Layer:
    """``output`` and ``found``: its output in the network and as written. ``shape``: of its error, which fits these.

    ``rank``: of its output, 0 where that is a product's, whose channels come last. ``root``: see ``_unused``.
    """

    root: str
    name: str
    output: str
    found: str
    shape: tuple[int, ...]
    rank: int

    @classmethod
    def of(cls, network: ModelProto, written: ModelProto, name: str, root: str) -> _Layer:
        ours = next(node for node in network.graph.node if node.name == name)
        theirs = next(node for node in written.graph.node if node.name == name)
        dims = next(tensor.dims for tensor in network.graph.initializer if tensor.name == ours.input[1])
        channels = int(dims[weight_axis(ours, len(dims))])
        rank = 0 if ours.op_type in ("MatMul", "Gemm") else len(dims)
        shape = (1, channels, *[1] * (rank - 2)) if rank else (channels,)
        return cls(root, name, ours.output[0], theirs.output[0], shape, rank)

    def own(self, end: str) -> str:
        """The name of something of this layer's."""
        return f"{self.root}layers/{self.name}/{end}"

    @property
    def so_far(self) -> str:
        """The error before a batch."""
        return self.own("so_far")

    @property
    def error(self) -> str:
        """The error with it."""
        return self.own("error")

    @property
    def corrected(self) -> str:
        """The output with the error added."""
        return self.own("corrected")

    @property
    def axes(self) -> tuple[int, ...]:
        """All but the channels'."""
        return tuple(axis for axis in range(self.rank) if axis != 1) or (0,)

    def nodes(self, reads_axes: bool) -> Iterator[NodeProto]:
        """What is added behind the layer."""
        rows, mean, more, share = map(self.own, ("rows", "mean", "more", "share"))
        yield helper.make_node("Sub", [f"{self.root}{NETWORK}{self.output}", self.found], [rows])
        if not self.rank:
            yield helper.make_node("Flatten", [rows], [self.own("flat")], axis=-1)
            rows = self.own("flat")
        keep = int(self.rank > 0)
        if reads_axes:
            yield helper.make_node("ReduceMean", [rows, _axes_name(self.root, self.axes)], [mean], keepdims=keep)
        else:
            yield helper.make_node("ReduceMean", [rows], [mean], keepdims=keep, axes=self.axes)
        yield helper.make_node("Sub", [mean, self.so_far], [more])
        yield helper.make_node("Mul", [more, self.root + SHARE], [share])
        yield helper.make_node("Add", [self.so_far, share], [self.error])
        yield helper.make_node("Add", [self.found, self.error], [self.corrected])


def _unused(*models: ModelProto) -> str:
    """With which no name in ``models`` begins."""
    names = {name for model in models for node in model.graph.node for name in (*node.input, *node.output)}
    root = ROOT
    while any(name.startswith(root) for name in names):
        root += "/"
    return root


def _joint(network: ModelProto, written: ModelProto, layers: Sequence[_Layer], root: str) -> ModelProto:
    """Both graphs, and behind each layer of ``written`` what corrects it; the errors are the outputs."""
    model, half = load(written), compose.add_prefix(load(network), root + NETWORK, rename_inputs=False)
    reads_axes, by_output = opset(model) >= AXES_READ, {layer.found: layer for layer in layers}
    nodes = list(half.graph.node)
    for node in list(model.graph.node):
        for position, name in enumerate(node.input):
            if name in by_output:
                node.input[position] = by_output[name].corrected
        nodes.append(node)
        for name in node.output:
            nodes += by_output[name].nodes(reads_axes) if name in by_output else ()
    constants = [*half.graph.initializer, *model.graph.initializer]
    constants += _axes(root, {layer.axes for layer in layers}) if reads_axes else []
    inputs = [value for value in model.graph.input if value.name not in Index(model).initializers]
    inputs.append(_floats(root + SHARE, ()))
    inputs += [_floats(layer.so_far, layer.shape) for layer in layers]
    outputs = [_floats(layer.error, layer.shape) for layer in layers]
    graph = helper.make_graph(nodes, "correction", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _axes(root: str, used: set[tuple[int, ...]]) -> list[TensorProto]:
    return [numpy_helper.from_array(np.asarray(axes, np.int64), _axes_name(root, axes)) for axes in sorted(used)]


def _axes_name(root: str, axes: Sequence[int]) -> str:
    return f"{root}axes{'_'.join(map(str, axes))}"


def _floats(name: str, shape: Sequence[int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _row_bytes(network: ModelProto, written: ModelProto, layers: Sequence[_Layer]) -> int:
    """Of both halves at once, where the first waits for the second with all that is compared."""
    shapes = infer(network, batch=1)
    waiting = [shapes.get(layer.output) for layer in layers]
    return peak_row_bytes(network) + peak_row_bytes(written) + sum(4 * one.elements for one in waiting if one)
