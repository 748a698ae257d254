"""Weights on a grid of 4 bits whose scale is that of a block of inputs: which layers can have them, and what is stored.

Of a MatMul or Gemm alone: activations stay in floating point (weight-only quantization, W4A16 and W4A32). An integer
from -7 to 7 times the scale of its block, ``size`` inputs of one output channel: as ONNX's DequantizeLinear with a
``block_size`` says it from opset 21 on.
"""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import STANDARD, Index, opset
from dlx_deploy.graph.quantization.layers import quantizable, weight_axis
from dlx_deploy.graph.quantization.plan import QuantizationPlan
from dlx_deploy.graph.quantization.scheme import SMALLEST_FLOAT, SMALLEST_HALF_SCALE

__all__ = [
    "BLOCK_OPSET",
    "LEVELS",
    "BlockSource",
    "block_scales",
    "in_block_opset",
    "int4_tensor",
    "not_blockable",
    "unblocked",
]

BLOCK_OPSET = 21
"""The first with INT4 and with scales for blocks."""
LEVELS = 7
BlockSource = Literal["max", "mse"]
"""How a block's scale is found: its largest weight is 7 steps, or what makes the squared error least."""
SHRUNK = np.linspace(1.0, 0.6, 17, dtype=np.float32)
"""Of the scale of ``max``: what is tried for ``mse``. Blocks of normal numbers are best at about 0.85."""
_log = logging.getLogger(__name__)
_BIGGEST = 1 << 22
"""Weights that are tried at once."""
_CHANGED = ("GroupNormalization",)
"""Operators of opset 20 that mean something else in opset 21; others only take more types."""


def not_blockable(index: Index, node: NodeProto, size: int) -> str:
    """Why a layer that can be quantized cannot have blocks of ``size`` inputs; empty if it can."""
    dims = list(index.initializers[node.input[1]].dims)
    if node.op_type not in ("Gemm", "MatMul") or len(dims) != 2:
        return f"it is a {node.op_type} of weights {dims}; rule: MatMul and Gemm with a constant matrix"
    axis = weight_axis(node, 2)
    if dims[1 - axis] % size:
        return f"it has {dims[1 - axis]} inputs; rule: a multiple of the block size, {size}"
    return f"it has {dims[axis]} outputs; rule: an even number, two to a byte" if dims[axis] % 2 else ""


def unblocked(index: Index, size: int, given: QuantizationPlan) -> set[str]:
    """The layers that cannot have INT4 weights, in blocks of ``size`` or as ``given`` says: they stay as they are."""
    found = set()
    for node in quantizable(index, set()):
        line = given.layers.get(node.name)
        if why := not_blockable(index, node, (line and line.block_size) or size):
            _log.info("%s stays in floating point: %s", node.name, why)
            found.add(node.name)
    return found


def block_scales(
    weight: NDArray[np.float32], axis: int, size: int, source: str = "max", half: bool = False
) -> NDArray[np.float32]:
    """float32, as ``weight`` but with one number for each block of ``size`` along the axis of inputs; all above 0.

    ``weight``: float32[inputs, outputs] or the other way round; ``axis``: that of the inputs. ``half``: the scales are
    numbers that float16 holds.
    """
    rows = np.moveaxis(weight, axis, 1)
    blocks = rows.reshape(len(rows), -1, size)
    plain = _kept(np.abs(blocks).max(axis=2) / np.float32(LEVELS), half)
    scales = _least_error(blocks, plain, half) if source == "mse" else plain
    return np.ascontiguousarray(np.moveaxis(scales, 1, axis))


def _least_error(blocks: NDArray[np.float32], plain: NDArray[np.float32], half: bool) -> NDArray[np.float32]:
    """float32[outputs, blocks]: of ``plain`` times each of ``SHRUNK`` the one with the least squared error."""
    best = plain.copy()
    step = max(_BIGGEST // max(blocks[0].size, 1), 1)
    for start in range(0, len(blocks), step):
        part, first = blocks[start : start + step], plain[start : start + step]
        least = np.full(first.shape, np.inf, np.float32)
        for factor in SHRUNK:
            tried = _kept(first * factor, half)[..., None]
            error = np.square(np.rint(part / tried).clip(-LEVELS, LEVELS) * tried - part).sum(axis=2)
            better = error < least
            least = np.where(better, error, least)
            best[start : start + step] = np.where(better, tried[..., 0], best[start : start + step])
    return best


def _kept(scales: NDArray[np.float32], half: bool) -> NDArray[np.float32]:
    """Above 0, and with ``half`` numbers of float16; a block of nothing but zeros has the scale 1."""
    smallest = SMALLEST_HALF_SCALE if half else SMALLEST_FLOAT
    kept = np.where(scales == 0, np.float32(1), np.maximum(scales, np.float32(smallest)))
    return np.asarray(kept.astype(np.float16) if half else kept, np.float32)


def int4_tensor(steps: NDArray[np.generic], name: str) -> TensorProto:
    """An initializer of type INT4 with ``steps``, int8 from -8 to 7: two to a byte, the first in its lower half."""
    flat = steps.astype(np.int8).reshape(-1)
    if flat.size % 2:
        flat = np.append(flat, np.int8(0))
    packed = (flat[0::2] & 15) | ((flat[1::2] & 15) << 4)
    return TensorProto(
        name=name, data_type=TensorProto.INT4, dims=list(steps.shape), raw_data=packed.astype(np.uint8).tobytes()
    )


def in_block_opset(model: ModelProto) -> ModelProto:
    """``model``, edited in place, at an opset that has blocks; of opset 20 only the number changes.

    Raises:
        ConfigError: it is older, or an operator in it would mean something else.
    """
    here = opset(model)
    if here >= BLOCK_OPSET:
        return model
    changed = [node.name for node in model.graph.node if node.op_type in _CHANGED]
    if here < BLOCK_OPSET - 1 or changed:
        seen = f"the graph is at opset {here}" + (f" and has {changed[0]!r} (GroupNormalization)" if changed else "")
        raise ConfigError(
            f"{seen}; rule: INT4 weights are said in opset {BLOCK_OPSET}, which a graph of opset {BLOCK_OPSET - 1} "
            "without GroupNormalization is by its number; set export.opset to 20 or 21, or quantize.precision to 'int8'"
        )
    for entry in model.opset_import:
        if entry.domain in STANDARD:
            entry.version = BLOCK_OPSET
    model.ir_version = max(model.ir_version, 10)
    return model
