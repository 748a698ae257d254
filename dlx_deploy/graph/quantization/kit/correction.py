"""Bias correction: what quantization shifts in the mean of each output channel is taken back in its bias.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721), section
4.2 and appendix D: empirical, one layer after the other, each seeing those before it as they were corrected.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.graph.quantization.kit.biases import with_bias
from dlx_deploy.graph.quantization.kit.segments import Segments, affordable
from dlx_deploy.graph.quantization.kit.state import Setting, State
from dlx_deploy.progress import Progress
from dlx_deploy.runtime.untyped import Array

__all__ = ["correct_biases"]


def correct_biases(state: State, setting: Setting, progress: Progress) -> State | None:
    """``state`` with biases that make the mean of every channel on the grid that ships what it is in float32."""
    layers = with_bias(state.model, state.plan.layers_at("int8"))
    if not layers:
        return None
    written = setting.write(replace(state, biases={}))
    samples = affordable(state.model, setting.fitted)
    network, integers = Segments(state.model, samples), Segments(written, samples)
    network_outputs, written_outputs = _outputs(state.model), _outputs(written)
    biases: dict[str, NDArray[np.float32]] = {}
    for done, layer in enumerate(layers):
        progress(done, len(layers), f"bias correction of {layer}")
        output, is_product = network_outputs[layer]
        wanted, found = network.until(output), integers.until(written_outputs[layer][0])
        axis = wanted[0].ndim - 1 if is_product else 1
        shift = _means(wanted, axis) - _means(found, axis)
        biases[layer] = shift
        shape = [-1 if at == axis else 1 for at in range(found[0].ndim)]
        for values in found:
            values += shift.reshape(shape)
    return replace(state, biases=biases)


def _outputs(model: ModelProto) -> dict[str, tuple[str, bool]]:
    """Node → its output, and whether that is a matrix product, whose channels come last."""
    return {node.name: (node.output[0], node.op_type in ("MatMul", "Gemm")) for node in model.graph.node}


def _means(batches: list[Array], axis: int) -> NDArray[np.float32]:
    """float32[channels] over all batches."""
    others = tuple(at for at in range(batches[0].ndim) if at != axis)
    total = sum(values.sum(axis=others, dtype=np.float64) for values in batches)
    count = sum(values.size // values.shape[axis] for values in batches)
    return np.asarray(total / count, np.float32)
