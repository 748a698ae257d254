"""Runs a graph part by part over all inputs, so that what comes later may still change; each node runs once."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from dlx_deploy.graph.execution.memory import peak_row_bytes, rows_within
from dlx_deploy.graph.model import Index, input_dims, to_bytes
from dlx_deploy.graph.samples import Samples
from dlx_deploy.runtime.backends.session import open_session
from dlx_deploy.runtime.untyped import Array

__all__ = ["Segments", "affordable"]

LARGEST_BATCH = 64
HELD_BYTES = 1 << 30
"""Of the tensors that later parts read, over all inputs."""


def affordable(model: ModelProto, samples: Samples) -> Samples:
    """As many of ``samples`` as can be on their way through ``model`` at once."""
    return samples[: rows_within(peak_row_bytes(model), len(samples), HELD_BYTES)]


class Segments:
    """``model``'s values on ``samples``, computed as far as they were asked for; Q/DQ are computed as written.

    Constants that have not been read may still be replaced in ``model``; a value that was computed may be changed
    in place.
    """

    def __init__(self, model: ModelProto, samples: Samples) -> None:
        self._index = Index(model)
        self._left = list(model.graph.node)
        shapes = input_dims(model)
        fixed = next(iter(shapes.values()))[0]
        size = fixed or rows_within(peak_row_bytes(model), LARGEST_BATCH)
        self._values = [part.fitted(shapes).feed() for part in samples.batches(size, fill=fixed is not None)]

    def until(self, name: str) -> list[Array]:
        """The tensor ``name`` for each batch of rows; it is gone once all that reads it has run."""
        if name not in self._values[0]:
            self._run(name)
        return [values[name] for values in self._values]

    def _run(self, name: str) -> None:
        nodes = self._before(name)
        taken = {id(node) for node in nodes}
        self._left = [node for node in self._left if id(node) not in taken]
        later = {read for node in self._left for read in node.input} | {name}
        made = [out for node in nodes for out in node.output if out in later]
        session = open_session(to_bytes(self._part(nodes, made)), exact_qdq=True, threads=1)
        reads = [entry.name for entry in session.get_inputs()]
        for values in self._values:
            answers = session.run(made, {read: values[read] for read in reads})
            values.update(zip(made, answers, strict=True))
            for old in [old for old in values if old not in later]:
                del values[old]

    def _before(self, name: str) -> list[NodeProto]:
        """What has still to run for ``name``, in order."""
        needed, nodes = {name}, []
        for node in reversed(self._left):
            if needed & set(node.output):
                needed |= set(node.input)
                nodes.append(node)
        return nodes[::-1]

    def _part(self, nodes: list[NodeProto], made: Iterable[str]) -> ModelProto:
        read = {name for node in nodes for name in node.input if name}
        inputs = [_end(name, values) for name, values in self._values[0].items() if name in read]
        constants = [tensor for name, tensor in self._index.initializers.items() if name in read]
        outputs = [ValueInfoProto(name=name) for name in made]
        graph = helper.make_graph(nodes, "segment", inputs, outputs, constants)
        whole = self._index.model
        return helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)


def _end(name: str, values: Array) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    return helper.make_tensor_value_info(name, kind, [None] * values.ndim)
