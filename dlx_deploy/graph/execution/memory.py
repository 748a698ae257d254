"""How much memory a graph's activations take, and how many rows are therefore run at a time; no torch."""

from __future__ import annotations

from collections import Counter

from onnx import ModelProto, TensorProto

from dlx_deploy.errors import StageFailed
from dlx_deploy.graph.model import TensorInfo, infer

__all__ = ["BATCH_BYTES", "peak_row_bytes", "rows_within"]

BATCH_BYTES = 64 << 20
"""Of the activations of one batch; what unfolds a convolution's windows, and what is kept for later, come on top."""
_WIDE = (TensorProto.INT64, TensorProto.UINT64, TensorProto.DOUBLE)


def rows_within(row_bytes: int, most: int, budget: int = BATCH_BYTES) -> int:
    """How many rows of ``row_bytes`` fit into ``budget`` bytes: 1 to ``most``.

    It depends on nothing of the machine, as the size of a batch may show in the last bit of an answer.
    """
    return min(max(budget // max(row_bytes, 1), 1), most)


def peak_row_bytes(model: ModelProto) -> int:
    """The bytes of activations that are alive at once while one row runs through ``model``, node after node.

    A tensor lives from the node that makes it to the last one that reads it. Numbers of up to 4 bytes count as 4: exact
    arithmetic holds them as float32. 0 where shapes cannot be inferred.
    """
    try:
        shapes = infer(model, batch=1)
    except StageFailed:
        return 0
    stored = {"", *(tensor.name for tensor in model.graph.initializer)}
    readers = Counter(name for node in model.graph.node for name in node.input)
    readers.update(value.name for value in model.graph.output)
    alive = {value.name for value in model.graph.input} - stored
    now = most = sum(_bytes(shapes.get(name)) for name in alive)
    for node in model.graph.node:
        if all(name in stored for name in node.input):
            stored.update(node.output)  # weights, dequantized: as large for any number of rows
            continue
        now += sum(_bytes(shapes.get(name)) for name in node.output)
        most = max(most, now)
        readers.subtract(node.input)
        done = {name for name in (*node.input, *node.output) if name not in stored and not readers[name]}
        now -= sum(_bytes(shapes.get(name)) for name in done)
    return most


def _bytes(info: TensorInfo | None) -> int:
    if info is None:
        return 0
    return info.elements * (8 if info.dtype in _WIDE else 4)
