"""graph/ and nn/export for models of one input and one output, given as plain arrays: what most tests have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.graph.checks import rows, spread
from dlx_deploy.graph.execution import evaluation, latency
from dlx_deploy.graph.model import load
from dlx_deploy.graph.quantization import quantize, ranges
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.export import parity
from dlx_deploy.nn.export.spec import ExportSpec, TextSpec
from dlx_deploy.runtime.tasks.classes import LOGITS
from dlx_deploy.runtime.tasks.image_inputs import IMAGES
from dlx_deploy.runtime.tasks.text_inputs import TOKENS
from dlx_deploy.runtime.timing.latency import Latency
from dlx_deploy.runtime.timing.sampling import Sampling

Array = NDArray[Any]
CLASSES = {LOGITS: (None,)}
"""What a classifier of any number of classes answers."""


def class_logits(classes: int) -> dict[str, tuple[int | None, ...]]:
    return {LOGITS: (classes,)}


def image_spec(
    height: int,
    width: int,
    channels: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    opset: int = 20,
    **rest: Any,
) -> ExportSpec:
    return ExportSpec(height, width, channels, mean, std, **{"outputs": CLASSES, "opset": opset, **rest})


def text_spec(max_length: int, pad_id: int, **rest: Any) -> TextSpec:
    return TextSpec(max_length, pad_id, **{"outputs": CLASSES, **rest})


def samples(inputs: Array, pad_id: int | None = None, name: str = "") -> Samples:
    """Tokens [N, L], which ``pad_id`` pads, or images."""
    name = name or (TOKENS if inputs.ndim == 2 else IMAGES)
    return Samples({name: inputs}, {} if pad_id is None else {name: pad_id})


def run_onnx(model: Path | bytes, inputs: Array, exact_qdq: bool, pad_id: int | None = None, **rest: Any) -> Array:
    entry = load(model).graph.input[0].name
    (answer,) = evaluation.run_onnx(model, samples(inputs, pad_id, entry), exact_qdq, **rest).values()
    return answer


def check_parity(path: Path, model: Any, spec: Any, inputs: Array, tolerance: float) -> parity.ParityReport:
    return parity.check_parity(path, model, spec, samples(inputs, getattr(spec, "pad_id", None)), tolerance)


def interleaved_latency(
    models: Mapping[str, Path], row: Array, rounds: int, threads: int, pad_id: int | None = None
) -> Mapping[str, Latency]:
    return latency.interleaved_latency(models, samples(row, pad_id), Sampling(rounds), threads).latencies


def quantize_model(
    source: Path, out: Path, inputs: Array, request: quantize.QuantizationRequest, pad_id: int | None = None
) -> quantize.QuantizationReport:
    return quantize.quantize_model(source, out, samples(inputs, pad_id), request)


def activation_ranges(
    model: ModelProto, inputs: Array, tensors: Collection[str], method: str, symmetric: bool
) -> dict[str, ranges.Range]:
    asked = dict.fromkeys(tensors, (method,))
    return ranges.collect_ranges(model, samples(inputs), asked, symmetric=symmetric).of(method)


def refuse_dependent_rows(
    path: Path | bytes, inputs: Array, exact_qdq: bool, tolerance: float, pad_id: int | None = None
) -> None:
    rows.refuse_dependent_rows(path, samples(inputs, pad_id), exact_qdq, tolerance)


def dependence(
    run: Callable[[Array, int], Array], inputs: Array, expected: Array, tolerance: float, fixed: int | None = None
) -> rows.Dependence | None:
    def named(part: Samples, batch: int) -> dict[str, Array]:
        return {LOGITS: run(part.arrays[IMAGES], batch)}

    return rows.dependence(named, samples(inputs, name=IMAGES), {LOGITS: expected}, tolerance, fixed)


def first_dependent_node(
    model: ModelProto, inputs: Array, exact_qdq: bool, tolerance: float, pad_id: int | None
) -> str:
    return rows.first_dependent_node(model, samples(inputs, pad_id), exact_qdq, tolerance)


def moved(model: bytes, inputs: Array, pad_id: int | None = None) -> float:
    (share,) = spread.spread(model, samples(inputs, pad_id, load(model).graph.input[0].name)).values()
    return share


def unlike(inputs: Array) -> Array:
    return np.asarray(rows.unlike(samples(inputs)).arrays[TOKENS if inputs.ndim == 2 else IMAGES])


def top1(logits: Array, labels: Array) -> float:
    return float((logits.argmax(axis=1) == labels).mean())
