"""Rounding of weights that makes up for its errors: what one weight loses, those that are not rounded yet take over.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (arXiv
2210.17323), after Hassibi and Stork 1993; for convolutions, too. The inputs of a layer are those that it gets on the
grid that ships, behind layers that were rounded so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from dlx_deploy.graph.model import Index
from dlx_deploy.graph.quantization.blocks import int4_tensor
from dlx_deploy.graph.quantization.kit.moments import as_rows, from_rows, second_moments
from dlx_deploy.graph.quantization.kit.segments import Segments, affordable
from dlx_deploy.graph.quantization.kit.state import Setting, State
from dlx_deploy.graph.quantization.placement import Weights
from dlx_deploy.graph.quantization.planning import weight_levels, weight_scales
from dlx_deploy.progress import Progress

__all__ = ["learn_rounding", "rounded_in_turn"]

DAMPING = 0.01
"""Of the mean second moment, added to each: few inputs leave directions in which nothing was seen."""
MOST_INPUTS = 4096
"""Of an output channel; the moments of more would take gigabytes."""

Floats = NDArray[np.float64]


def learn_rounding(state: State, setting: Setting, progress: Progress) -> State | None:
    """``state`` with integers for the weights of every layer with few enough inputs to weigh against each other."""
    written = setting.write(replace(state, rounded={}))
    nodes = {node.name: node for node in state.model.graph.node}
    index = Index(state.model)
    chosen = [entry for entry in setting.placement.weights if _fits(nodes[entry.layers[0]], index, entry)]
    if not chosen:
        return None
    order = {node.name: position for position, node in enumerate(state.model.graph.node)}
    segments = Segments(written, affordable(state.model, setting.fitted))
    readers = {node.name: node for node in written.graph.node}
    rounded: dict[str, NDArray[np.int8]] = {}
    for done, entry in enumerate(sorted(chosen, key=lambda entry: order[entry.layers[0]])):
        layer = entry.layers[0]
        progress(done, len(chosen), f"rounding of {layer}")
        node, weight = nodes[layer], index.array(entry.tensor).astype(np.float32)
        moments = second_moments(node, segments.until(readers[layer].input[0]), weight.shape[2:])
        line = state.plan.layers[layer]
        _, scale = weight_scales(setting.scheme, line, weight, entry.axis)
        levels = weight_levels(setting.scheme, line)
        units = as_rows(node, scale) if line.block_size else None
        rows = rounded_in_turn(as_rows(node, weight / scale), moments, levels, units)
        rounded[layer] = from_rows(node, rows, weight.shape)
        _put(written, readers[layer], rounded[layer])
    return replace(state, rounded=rounded)


def rounded_in_turn(
    weights: NDArray[np.float32], moments: Floats, levels: int, units: NDArray[np.float32] | None = None
) -> NDArray[np.int8]:
    """int8[groups, channels, inputs] within ``levels``: about ``weights``, float32 of that shape in steps of the grid.

    ``moments``: float64[groups, inputs, inputs] of the inputs. Zeros, which pruning may have made, stay zeros.
    ``units``: how large a step is, of that shape, where a channel has several sizes.
    """
    diagonal = np.diagonal(moments, axis1=1, axis2=2)
    order = np.argsort(-diagonal, axis=1, kind="stable")  # what is read most is rounded while most can make up for it
    left = np.take_along_axis(weights.astype(np.float64), order[:, None], axis=2)
    zeros = left == 0
    taken = np.take_along_axis(np.take_along_axis(moments, order[:, :, None], axis=1), order[:, None], axis=2)
    damped = taken + _damping(diagonal)[:, None, None] * np.eye(taken.shape[1])
    # Row i of the factor, upper: how weights behind i make up best for an error in i (the inverse's Cholesky factor).
    factor = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    sizes = np.take_along_axis(units.astype(np.float64), order[:, None], axis=2) if units is not None else None
    steps = np.zeros_like(left)
    for i in range(left.shape[2]):
        steps[:, :, i] = np.where(zeros[:, :, i], 0, np.rint(left[:, :, i]).clip(-levels, levels))
        error = (left[:, :, i] - steps[:, :, i]) / factor[:, None, i, i]
        taken_over = error[:, :, None] * factor[:, None, i, i + 1 :]
        if sizes is not None:
            taken_over *= sizes[:, :, i, None] / sizes[:, :, i + 1 :]
        left[:, :, i + 1 :] -= taken_over
    result = np.empty_like(steps)
    np.put_along_axis(result, np.broadcast_to(order[:, None], steps.shape), steps, axis=2)
    return result.astype(np.int8)


def _damping(diagonal: Floats) -> Floats:
    """For each group; an input that is always 0 has no say, but the moments must have an inverse."""
    mean = diagonal.mean(axis=1)
    return np.where(mean > 0, DAMPING * mean, 1.0)


def _fits(node: NodeProto, index: Index, entry: Weights) -> bool:
    dims = index.initializers[entry.tensor].dims
    if node.op_type == "Conv":
        return len(dims) == 4 and dims[1] * dims[2] * dims[3] <= MOST_INPUTS
    return len(dims) == 2 and dims[1 - entry.axis] <= MOST_INPUTS


def _put(written: ModelProto, reader: NodeProto, steps: NDArray[np.int8]) -> None:
    """Put the integers of a layer's weights into the graph, which has not run so far."""
    index = Index(written)
    restored = index.producer[reader.input[1]]
    stored = index.initializers[restored.input[0]]
    is_int4 = stored.data_type == TensorProto.INT4
    stored.CopyFrom(int4_tensor(steps, stored.name) if is_int4 else numpy_helper.from_array(steps, stored.name))
