"""Second moments of what layers read: what a rounding of their weights costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import NodeProto

from dlx_deploy.graph.model import attribute, int_attribute
from dlx_deploy.runtime.untyped import Array

__all__ = ["as_rows", "from_rows", "second_moments"]

MOST_COLUMNS = 1 << 15
"""Of the places where a convolution computes; more tell little more of a few hundred weights."""

Floats = NDArray[np.float64]


def as_rows(node: NodeProto, weight: Array) -> Array:
    """The weights of a Conv, or of a Gemm or MatMul of a matrix, as [groups, channels, inputs]: a row for each output
    channel of a group, whose numbers belong to the same inputs."""
    if node.op_type == "Conv":
        groups = int_attribute(node, "group", 1)
        return weight.reshape(groups, len(weight) // groups, -1)
    return (weight if _is_transposed(node) else weight.T)[None]


def from_rows(node: NodeProto, rows: Array, shape: Sequence[int]) -> Array:
    """``as_rows`` back; ``shape`` is that of the weights."""
    if node.op_type == "Conv":
        return rows.reshape(shape)
    return np.ascontiguousarray(rows[0] if _is_transposed(node) else rows[0].T)


def second_moments(node: NodeProto, batches: Sequence[Array], kernel: Sequence[int]) -> Floats:
    """float64[groups, inputs, inputs]: the mean of x · xᵀ over all places, x as the columns of ``as_rows``.

    ``batches``: what ``node`` reads, float32; ``kernel``: the kernel of a Conv. Of many places some are taken.
    """
    total: Floats | None = None
    rows = sum(map(len, batches))
    count = 0
    for values in batches:
        if node.op_type == "Conv":
            columns = _columns(node, values, kernel, max(MOST_COLUMNS // rows, 1))
        else:
            columns = values.reshape(-1, values.shape[-1]).T[None]
            columns = columns[:, :, :: columns.shape[2] * len(batches) // MOST_COLUMNS + 1]
        product = (columns @ columns.transpose(0, 2, 1)).astype(np.float64)
        total = product if total is None else total + product
        count += columns.shape[2]
    assert total is not None
    return np.asarray(total / max(count, 1))


def _columns(node: NodeProto, values: Array, kernel: Sequence[int], places: int) -> Array:
    """float32[groups, inputs, places of all images], of at most ``places`` an image, spread evenly."""
    strides, dilations = _ints(node, "strides", (1, 1)), _ints(node, "dilations", (1, 1))
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    padded = np.pad(values, ((0, 0), (0, 0), *_pads(node, values.shape[2:], reach, strides)))
    windows = sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    height, width = windows.shape[2:4]
    picked = np.linspace(0, height * width - 1, min(places, height * width)).astype(np.int64)
    some = windows[:, :, picked // width, picked % width]  # [images, channels, places, kernel, kernel]
    groups = int_attribute(node, "group", 1)
    count, channels = some.shape[:2]
    grouped = some.reshape(count, groups, channels // groups, len(picked), -1)
    return np.ascontiguousarray(grouped.transpose(1, 2, 4, 0, 3)).reshape(groups, -1, count * len(picked))


def _pads(node: NodeProto, size: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """(before, behind) of height and width."""
    auto = attribute(node, "auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = []
        for length, span, stride in zip(size, reach, strides, strict=True):
            whole = max((-(-length // stride) - 1) * stride + span - length, 0)
            less, more = whole // 2, whole - whole // 2
            pads.append((less, more) if auto == b"SAME_UPPER" else (more, less))
        return pads
    given = _ints(node, "pads", (0, 0, 0, 0))
    return [(given[0], given[2]), (given[1], given[3])]


def _ints(node: NodeProto, name: str, default: Sequence[int]) -> list[int]:
    return next((list(item.ints) for item in node.attribute if item.name == name), list(default))


def _is_transposed(node: NodeProto) -> bool:
    """Whether each row of the matrix is an output channel."""
    return node.op_type == "Gemm" and bool(int_attribute(node, "transB", 0))
