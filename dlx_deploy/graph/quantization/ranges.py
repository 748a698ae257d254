"""What activations do on the calibration inputs, kept as ``ranges.json``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.execution.memory import rows_within
from dlx_deploy.graph.model import Index, infer, input_dims, load, to_bytes
from dlx_deploy.graph.passes.half import float_tensors
from dlx_deploy.graph.quantization.lines import json_lines
from dlx_deploy.graph.quantization.observers import METHODS, Observer, RangeMethod
from dlx_deploy.graph.samples import Arrays, Samples
from dlx_deploy.progress import Progress, silent

__all__ = ["LARGEST_BATCH", "SCHEMA", "Range", "Ranges", "collect_ranges", "ranges_bytes", "rows_in_one_pass"]

SCHEMA = 1
LARGEST_BATCH = 32
MEMORY_BYTES = 1 << 30
"""What the tensors of a block of rows would take together; a block has at least one row."""
HELD_BYTES = 128 << 20
"""What they take of memory: only so much of a block is looked at at a time."""

Range = tuple[float, float]
"""(lowest, highest) value."""


class Ranges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``ranges.json``: tensor → method → the range that it finds, over ``rows`` calibration inputs."""

    schema: int = SCHEMA
    rows: int = 0
    tensors: Mapping[str, Mapping[str, Range]] = msgspec.field(default_factory=dict)

    def of(self, method: str) -> dict[str, Range]:
        """Tensor → its range by ``method``, where that was asked."""
        return {name: bounds[method] for name, bounds in self.tensors.items() if method in bounds}


def ranges_bytes(ranges: Ranges) -> bytes:
    """The ranges as JSON, a line for each tensor; equal ranges give equal bytes."""
    return json_lines({"schema": ranges.schema, "rows": ranges.rows}, {"tensors": ranges.tensors})


class _Session(Protocol):
    """The part of ``onnxruntime.InferenceSession`` that is used."""

    def run(self, names: list[str], feed: Arrays) -> list[NDArray[np.float32]]: ...


def collect_ranges(
    model: ModelProto,
    samples: Samples,
    asked: Mapping[str, Collection[str]],
    *,
    symmetric: bool,
    largest_batch: int = LARGEST_BATCH,
    methods: Mapping[str, RangeMethod] = METHODS,
    halved: Collection[str] = (),
    progress: Progress = silent,
) -> Ranges:
    """The range of each tensor by each of the methods ``asked`` for it, and by min-max.

    That takes one pass over ``samples``, in blocks of at most ``largest_batch``, and of fewer where tensors are large;
    histograms of large tensors take several, which need less memory and see the same. Methods in ``halved`` see every
    other sample alone, the first and so on.

    Raises:
        ConfigError: no samples, no tensors, or a method that is not there.
        StageFailed: a value is not finite, or the graph computes no such tensor.
    """
    _refuse(model, samples, asked, methods)
    observers = {
        name: {method: methods[method](symmetric=symmetric) for method in dict.fromkeys(("minmax", *asked[name]))}
        for name in sorted(asked)
    }
    shapes, sizes = input_dims(model), _row_bytes(model, observers)
    fixed = next(iter(shapes.values()))[0]
    block = fixed or rows_within(sum(sizes.values()), largest_batch, MEMORY_BYTES)
    passes, seen = _passes(observers, sizes, block, fixed is None), 0
    work = len(samples) * len(passes)
    for group, rows in passes:
        session, names, start = _session(model, group), list(group), seen
        for part in _parts(samples, block, rows, fill=fixed is not None):
            progress(min(seen, work), work, f"calibration on {len(samples)} inputs")
            first, seen = seen - start, seen + len(part)
            values = session.run(names, part.fitted(shapes).feed())
            for name, array in zip(names, values, strict=True):
                if not _update(array.reshape(-1), _but(observers[name], halved)):
                    raise _not_finite(model, part, first, name)
                if halved:
                    _update(array[first % 2 :: 2].reshape(-1), _only(observers[name], halved))
    bounds = {name: {method: one.bounds() for method, one in each.items()} for name, each in observers.items()}
    return Ranges(rows=len(samples), tensors=bounds)


def rows_in_one_pass(model: ModelProto, tensors: Collection[str]) -> int:
    """The ``largest_batch`` with which histograms of ``tensors`` take one pass, if a row's values can be held at all.

    What they say depends on how rows come together, so that the default is for all sizes the same.
    """
    return rows_within(sum(_row_bytes(model, tensors).values()), LARGEST_BATCH, HELD_BYTES)


def _passes(
    observers: Mapping[str, Mapping[str, Observer]], sizes: Mapping[str, int], block: int, divisible: bool
) -> list[tuple[list[str], int]]:
    """The tensors that are looked at in each pass over the samples, and how many rows at a time.

    The smallest and largest value do not depend on which rows come together. What a histogram says does, so its tensors
    see whole blocks, and what they then leave no room for waits for another pass.
    """
    extremes = [name for name, each in observers.items() if divisible and list(each) == ["minmax"]]
    passes = [(extremes, rows_within(sum(sizes[name] for name in extremes), block, HELD_BYTES))] if extremes else []
    held = 0
    for name in (name for name in observers if name not in extremes):
        if not held or held + block * sizes[name] > HELD_BYTES:
            passes.append(([], block))
            held = 0
        passes[-1][0].append(name)
        held += block * sizes[name]
    return passes


def _parts(samples: Samples, block: int, rows: int, fill: bool) -> Iterator[Samples]:
    for whole in samples.batches(block, fill):
        yield from whole.batches(rows, fill=False)


def _refuse(
    model: ModelProto, samples: Samples, asked: Mapping[str, Collection[str]], methods: Collection[str]
) -> None:
    if not len(samples) or not asked:
        raise ConfigError(f"{len(samples)} calibration images for {len(asked)} tensors; rule: at least one of each")
    if missing := sorted(set(asked) - set(Index(model).producer)):
        raise StageFailed(f"the graph computes no tensor {missing[0]!r}; calibrate the graph that is quantized")
    if unknown := sorted({name for names in asked.values() for name in names} - set(methods)):
        raise ConfigError(f"calibration method {unknown[0]!r} is not one of {', '.join(methods)}")


def _but(observers: Mapping[str, Observer], methods: Collection[str]) -> dict[str, Observer]:
    return {name: observer for name, observer in observers.items() if name not in methods}


def _only(observers: Mapping[str, Observer], methods: Collection[str]) -> dict[str, Observer]:
    return {name: observer for name, observer in observers.items() if name in methods}


def _update(values: NDArray[np.float32], observers: Mapping[str, Observer]) -> bool:
    """Whether the values are finite, and have been seen then."""
    if not values.size:
        return True
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return False
    for observer in observers.values():
        observer.update(values, low, high)
    return True


def _not_finite(model: ModelProto, part: Samples, first: int, tensor: str) -> StageFailed:
    """Which node is the first to give infinities or NaN for which of the samples in ``part``; ``tensor`` has some."""
    names = [name for name in float_tensors(model) if name != tensor] + [tensor]
    shapes, session = input_dims(model), _session(model, names)
    size = next(iter(shapes.values()))[0]
    for number, one in enumerate(part.batches(size or 1, fill=size is not None)):
        values = dict(zip(names, session.run(names, one.fitted(shapes).feed()), strict=True))
        for node in model.graph.node:
            for name in (name for name in node.output if name in values and values[name].size):
                low, high = values[name].min(), values[name].max()
                if not (np.isfinite(low) and np.isfinite(high)):
                    return StageFailed(
                        f"{node.name!r} ({node.op_type}) gives {low} to {high} for calibration input "
                        f"{first + number * (size or 1)}, the first node of the network that does so; rule: finite "
                        "values; look at that input, or train with a lower learning rate"
                    )
    return StageFailed(f"tensor {tensor!r} is not finite on the calibration inputs; rule: finite values; train again")


def _session(model: ModelProto, tensors: Collection[str]) -> _Session:
    """A session of ``model`` that gives ``tensors``, not optimized: a fused node would not compute all of them."""
    import onnxruntime

    model = load(model)
    known = {value.name: value for value in model.graph.output}
    outputs = [known.get(name, onnx.ValueInfoProto(name=name)) for name in tensors]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    # Between small nodes threads would wait for each other by turning: nearly half of the processor's time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # it grows by powers of two, and what was returned to it stays there
    session: _Session = onnxruntime.InferenceSession(to_bytes(model), options, providers=["CPUExecutionProvider"])
    return session


def _row_bytes(model: ModelProto, tensors: Collection[str]) -> dict[str, int]:
    """Tensor → the bytes of one row; 0 where its shape is not known."""
    shapes = infer(model, batch=1)
    return {name: 4 * shapes[name].elements if name in shapes else 0 for name in tensors}
