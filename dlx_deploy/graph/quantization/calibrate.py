"""Activation ranges from calibration images, by ONNX Runtime's calibrators."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.model import Index, input_dims, to_bytes
from dlx_deploy.graph.samples import Samples

__all__ = ["Method", "Ranges", "activation_ranges"]

Method = Literal["minmax", "percentile", "entropy"]
Ranges = dict[str, tuple[float, float]]
"""Tensor name → (lowest, highest) value."""

PERCENTILE = 99.99
LARGEST_BATCH = 32


def activation_ranges(
    model: ModelProto,
    samples: Samples,
    tensors: Collection[str],
    method: Method,
    symmetric: bool,
    largest_batch: int = LARGEST_BATCH,
) -> Ranges:
    """The range of each of ``tensors`` over ``samples``, ``largest_batch`` at a time.

    ``percentile`` keeps 99.99 % of the values; ``entropy`` minimises the Kullback-Leibler divergence between the values
    and their quantized form (Migacz, GTC 2017). With ``symmetric``, ranges are centred on zero.

    Raises:
        ConfigError: no inputs, or some that the model does not take.
        StageFailed: a range is not finite, or the model has no such tensor.
    """
    if not len(samples) or not tensors:
        raise ConfigError(f"{len(samples)} calibration images for {len(tensors)} tensors; rule: at least one of each")
    missing = sorted(set(tensors) - set(Index(model).producer))
    if missing:
        raise StageFailed(f"the graph computes no tensor {missing[0]!r}; calibrate the graph that is quantized")
    shapes = input_dims(model)
    fixed = next(iter(shapes.values()))[0]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # ONNX Runtime prints
        calibrator = _calibrator(model, Path(folder), sorted(tensors), method, symmetric)
        for batch in samples.batches(fixed or largest_batch, fill=bool(fixed)):
            # One batch per call: all outputs of a call are held in memory, and a ragged one among them is refused.
            calibrator.collect_data(_OneBatch(batch.fitted(shapes).feed()))
        found = calibrator.compute_data()
    return {name: _checked(name, found[name].range_value) for name in sorted(tensors)}


class _OneBatch:
    """ONNX Runtime's reader protocol for a single batch."""

    def __init__(self, feed: dict[str, NDArray[Any]]) -> None:
        self._feeds = [feed]

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The batch, then ``None``."""
        return self._feeds.pop() if self._feeds else None


def _calibrator(model: ModelProto, folder: Path, tensors: list[str], method: Method, symmetric: bool) -> Any:
    """ONNX Runtime's calibrator, told to look at ``tensors`` alone."""
    from onnxruntime.quantization import calibrate

    source = folder / "model.onnx"
    source.write_bytes(to_bytes(model))
    options: dict[str, Any] = {"augmented_model_path": str(folder / "augmented.onnx"), "symmetric": symmetric}
    kind = calibrate.MinMaxCalibrater
    if method == "percentile":
        kind = calibrate.PercentileCalibrater
        options["percentile"] = PERCENTILE
    elif method == "entropy":
        kind = calibrate.EntropyCalibrater
    calibrator = kind(source, **options)
    shapes = calibrator.select_tensors_to_calibrate(calibrator.model)[1]
    calibrator.select_tensors_to_calibrate = lambda _: (tensors, shapes)
    calibrator.augment_graph()
    calibrator.create_inference_session()
    return calibrator


def _checked(name: str, found: Any) -> tuple[float, float]:
    low, high = (float(np.asarray(v).reshape(-1)[0]) for v in found)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise StageFailed(f"tensor {name!r} reaches {low} to {high} on the calibration images; rule: finite values")
    return low, high
