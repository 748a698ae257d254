"""Calibration coverage: which ranges of a compressed graph clip what its network computes on real samples.

A range that is too narrow clips: how often and how far beyond is counted. One that is far too wide wastes its integers:
the share of it that is used tells. Both are seen on what the graph in floating point computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from dlx_deploy.graph.comparison.tapped import Tap, parts_of, row_tensors
from dlx_deploy.graph.model import Index, batch_size, load
from dlx_deploy.graph.quantization.scheme import LARGEST_FP8, SMALLEST_FLOAT
from dlx_deploy.graph.samples import Samples
from dlx_deploy.progress import Progress, silent
from dlx_deploy.runtime.untyped import Array

__all__ = ["Coverage", "range_coverage", "ranges_in", "widened"]

LIMITS: dict[int, tuple[int, int]] = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
    TensorProto.FLOAT8E4M3FN: (-LARGEST_FP8, LARGEST_FP8),
}
LEVELS: dict[int, int] = {TensorProto.INT8: 127, TensorProto.UINT8: 255, TensorProto.FLOAT8E4M3FN: LARGEST_FP8}
"""Steps from 0 to the end of a range, or from end to end where integers have no sign."""


@dataclass(frozen=True)
class Coverage:
    """An activation's range, ``low`` to ``high``, and what there was of it: ``seen_low`` to ``seen_high``.

    ``node``: what makes the tensor. ``clipped``: the share of values beyond by more than half a step; ``samples``: that
    of samples with such a value; ``beyond``: how far the furthest is outside, in widths of the range; ``used``: the
    share of it that values span.
    """

    tensor: str
    node: str
    low: float
    high: float
    seen_low: float
    seen_high: float
    clipped: float
    samples: float
    beyond: float
    used: float


@dataclass
class _Seen:
    low: float
    high: float
    half_step: float
    smallest: float = np.inf
    largest: float = -np.inf
    outside: int = 0
    values: int = 0
    samples: int = 0
    rows: int = 0

    def add(self, array: Array) -> None:
        flat = array.reshape(len(array), -1)
        out = (flat < self.low - self.half_step) | (flat > self.high + self.half_step)
        self.smallest, self.largest = min(self.smallest, float(flat.min())), max(self.largest, float(flat.max()))
        self.outside, self.values = self.outside + int(out.sum()), self.values + flat.size
        self.samples, self.rows = self.samples + int(out.any(axis=1).sum()), self.rows + len(flat)

    def coverage(self, tensor: str, node: str) -> Coverage:
        width = max(self.high - self.low, SMALLEST_FLOAT)
        beyond = max(self.low - self.smallest, self.largest - self.high, 0.0) if self.outside else 0.0
        spanned = min(self.high, max(self.largest, 0.0)) - max(self.low, min(self.smallest, 0.0))
        if self.low < 0 < self.high and abs(self.low + self.high) <= 4 * self.half_step:  # symmetric: 0 is its middle
            spanned = 2 * min(self.high, max(abs(self.largest), abs(self.smallest)))
        return Coverage(
            tensor=tensor,
            node=node,
            low=self.low,
            high=self.high,
            seen_low=self.smallest,
            seen_high=self.largest,
            clipped=self.outside / max(self.values, 1),
            samples=self.samples / max(self.rows, 1),
            beyond=beyond / width,
            used=max(min(spanned / width, 1.0), 0.0),
        )


def ranges_in(written: ModelProto) -> dict[str, tuple[float, float, float]]:
    """Activation → the lowest and highest value that its integers stand for, and half a step of them.

    Of activations that share a range the first.
    """
    index, ranges = Index(written), dict[str, tuple[float, float, float]]()
    for node in _quantizers(index):
        name, bounds = _range(index, node)
        ranges.setdefault(name, bounds)
    return ranges


def _quantizers(index: Index) -> list[NodeProto]:
    """What rounds an activation by a constant scale; of those with the same one the first."""
    scales: dict[str, NodeProto] = {}
    for node in index.model.graph.node:
        if node.op_type == "QuantizeLinear" and set(node.input[1:3]) <= set(index.initializers):
            scales.setdefault(node.input[1], node)
    return list(scales.values())


def widened(written: ModelProto, found: Sequence[Coverage]) -> ModelProto:
    """A copy of ``written`` whose ranges ``found`` are as wide as what was seen; those of fewer bits than 8 stay."""
    model = load(written)
    index, wanted = Index(model), {one.tensor: one for one in found}
    for node in _quantizers(index):
        one, kind = wanted.get(_range(index, node)[0]), index.initializers[node.input[2]].data_type
        if one is None or kind not in LEVELS or node.input[0].endswith("/clipped"):
            continue
        low, high, levels = min(one.seen_low, 0.0), max(one.seen_high, 0.0), LEVELS[kind]
        scale = np.float32((high - low if kind == TensorProto.UINT8 else max(high, -low)) / levels)
        half = index.initializers[node.input[1]].data_type == TensorProto.FLOAT16
        _set(index, node.input[1], np.asarray(scale, np.float16 if half else np.float32))
        if kind == TensorProto.UINT8:
            _set(index, node.input[2], np.asarray(np.clip(np.round(-low / scale), 0, levels), np.uint8))
    return model


def _set(index: Index, name: str, value: Array) -> None:
    tensor = index.initializers[name]
    tensor.CopyFrom(numpy_helper.from_array(value.reshape(tuple(tensor.dims)), name))


def _range(index: Index, node: NodeProto) -> tuple[str, tuple[float, float, float]]:
    scale = float(np.max(index.array(node.input[1]).astype(np.float32)))
    kind, zero = int(TensorProto.UINT8), 0.0
    if len(node.input) > 2 and node.input[2]:
        kind = index.initializers[node.input[2]].data_type
        zero = float(np.max(index.array(node.input[2]).astype(np.float32)))
    smallest, largest = LIMITS.get(kind, LIMITS[TensorProto.INT8])
    low, high, name = scale * (smallest - zero), scale * (largest - zero), str(node.input[0])
    clip = index.made_by(name, "Clip")
    if clip is not None and clip.output[0].endswith("/clipped"):  # fewer bits than they are stored as
        name, low, high = str(clip.input[0]), *(float(index.array(x)) for x in clip.input[1:3])
    return name.removesuffix("/unquantized").removesuffix("_QuantizeLinear_Input"), (low, high, scale / 2)


def range_coverage(
    reference: ModelProto, written: ModelProto, samples: Samples, progress: Progress = silent
) -> list[Coverage]:
    """Of each range of ``written`` whose tensor ``reference`` computes too, the worst first: where most is clipped,
    then where least is used.

    Raises:
        StageFailed: ONNX Runtime cannot run the graph with these tensors as outputs.
    """
    known = row_tensors(reference)
    ranges = {name: bounds for name, bounds in ranges_in(written).items() if name in known}
    ranges = {name: bounds for name, bounds in ranges.items() if known[name].dtype == TensorProto.FLOAT}
    if not ranges:
        return []
    seen = {name: _Seen(*bounds) for name, bounds in ranges.items()}
    tap, done = Tap(reference, list(ranges), exact=False), 0
    for part, rows in parts_of(samples, 6 * sum(known[name].elements for name in ranges), batch_size(reference)):
        progress(done, len(samples), f"{len(ranges)} ranges on {len(samples)} samples")
        for name, array in tap.run(part.fitted(tap.shapes).feed()).items():
            seen[name].add(array[:rows])
        done += rows
    makers = Index(reference).producer
    return _worst_first([one.coverage(name, makers[name].name if name in makers else "") for name, one in seen.items()])


def _worst_first(found: Sequence[Coverage]) -> list[Coverage]:
    return sorted(found, key=lambda one: (-one.clipped * (1 + one.beyond), one.used))
