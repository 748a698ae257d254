"""Factors that move between layers before anything is rounded, so that per-tensor ranges fit all channels.

Cross-layer equalisation: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction"
(arXiv 1906.04721), equations 10 and 11. Smoothing: Xiao et al. 2022, "SmoothQuant" (arXiv 2211.10438), equation 4,
behind LayerNormalization and, as weights have a scale for each output channel, behind convolutions as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.model import Index, to_bytes
from dlx_deploy.graph.passes.seams import Seam, divided, input_channels, seams
from dlx_deploy.graph.quantization.kit.segments import Segments, affordable
from dlx_deploy.graph.quantization.kit.state import Setting, State
from dlx_deploy.graph.samples import Samples
from dlx_deploy.progress import Progress

__all__ = ["equalise", "smooth"]

STRENGTH = 0.5
"""The share of what is uneven that goes from activations to weights: the paper's alpha."""
SMALLEST = 1e-3
"""Of the largest: a channel that means nothing is taken for one that means so much, or its factor has no bounds."""
MOST_OFF = 1e-4
"""Of the largest answer: how far float32's rounding may carry a graph that computes the same."""
CHECKED = 16
"""Inputs."""

Floats = NDArray[np.float32]
_Factors = Callable[[State, Setting, list[Seam], Progress], Mapping[str, Floats]]


def _equal_weights(state: State, setting: Setting, found: list[Seam], progress: Progress) -> Mapping[str, Floats]:
    """sqrt(r1 / r2): the ranges of a channel's weights in both layers become the same."""
    index, factors = Index(state.model), {}
    for seam in found:
        if seam.maker.op_type == "Conv":
            weight = np.abs(index.array(seam.maker.input[1]).astype(np.float32))
            factors[seam.tensor] = np.sqrt(_floored(weight.reshape(len(weight), -1).max(axis=1)) / _read(index, seam))
    return factors


def _smooth_activations(state: State, setting: Setting, found: list[Seam], progress: Progress) -> Mapping[str, Floats]:
    """|x| ** alpha / |w| ** (1 - alpha), of the largest of each channel."""
    index, factors = Index(state.model), {}
    running = Segments(state.model, affordable(state.model, setting.fitted))
    for done, seam in enumerate(found):
        progress(done, len(found), f"smoothing of {seam.tensor}")
        values = running.until(seam.tensor)
        axis = seam.axis % values[0].ndim
        others = tuple(at for at in range(values[0].ndim) if at != axis)
        seen = _floored(functools.reduce(np.maximum, (np.abs(one).max(axis=others) for one in values)))
        factors[seam.tensor] = seen**STRENGTH / _read(index, seam) ** (1 - STRENGTH)
    return factors


def _moved(factors_of: _Factors, state: State, setting: Setting, progress: Progress) -> State | None:
    """``state`` with the factors moved and its ranges measured anew; nothing where the answers would be others."""
    if setting.given.divided:  # what was given says of which channels its scales are
        return None
    layers = {name for entry in setting.placement.weights for name in entry.layers}
    found = [seam for seam in seams(state.model) if all(reader.name in layers for reader in seam.readers)]
    if not found:
        return None
    factors = {name: _powers_of_two(by) for name, by in factors_of(state, setting, found, progress).items()}
    model = divided(state.model, factors)
    if not factors or not _computes_the_same(state.model, model, setting.fitted[:CHECKED]):
        return None
    ranges = setting.measured(model, state.method, progress)
    plan = setting.planned(model, ranges, state.method)
    so_far = {name: by * state.divided.get(name, np.float32(1)) for name, by in factors.items()}
    return replace(state, model=model, plan=plan, ranges=ranges, divided={**state.divided, **so_far})


equalise = functools.partial(_moved, _equal_weights)
smooth = functools.partial(_moved, _smooth_activations)


def _read(index: Index, seam: Seam) -> Floats:
    return _floored(functools.reduce(np.maximum, (input_channels(index, reader) for reader in seam.readers)))


def _floored(values: Floats) -> Floats:
    """At least a share of the largest, and above 0."""
    largest = float(values.max())
    return np.asarray(np.maximum(values, SMALLEST * largest if largest > 0 else 1.0), np.float32)


def _powers_of_two(factors: Floats) -> Floats:
    """With a geometric mean of about 1; they cost no bit."""
    logs = np.log2(factors.astype(np.float64))
    return np.asarray(np.exp2(np.rint(logs - logs.mean())), np.float32)


def _computes_the_same(before: ModelProto, after: ModelProto, samples: Samples) -> bool:
    wanted, found = (run_onnx(to_bytes(model), samples, exact_qdq=False) for model in (before, after))
    return all(np.abs(wanted[name] - found[name]).max() <= MOST_OFF * np.abs(wanted[name]).max() for name in wanted)
