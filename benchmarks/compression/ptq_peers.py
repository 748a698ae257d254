"""What other quantizers make of a model: one file that needs nothing of ours, run by the Python that has the peer.

    PYTHON benchmarks/compression/ptq_peers.py PEER STYLE SOURCE.onnx CALIBRATION.npy OUT.onnx

Prints a line of JSON: the peer's version and the CPU seconds that it took, imports apart. Another peer is a function
here and a line in ``PEERS``; STYLE is ``tensorrt``, ``cpu`` or ``cpu-reduced``.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

LAYERS = ["Conv", "Gemm", "MatMul"]
BATCH = 8  # divides usual numbers of images: ONNX Runtime's percentile fails on a ragged last batch

Made = tuple[str, Callable[[], None]]
"""The peer's version, and what makes the file."""


def onnxruntime_defaults(style: str, source: str, images: Any, out: str) -> Made:
    """``quantize_static`` as it comes; for TensorRT symmetric, which its parser demands."""
    import onnxruntime
    from onnxruntime.quantization import quantize_static

    extra = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    kind = {"activation_type": _int8(), "weight_type": _int8(), "extra_options": extra} if style == "tensorrt" else {}
    return onnxruntime.__version__, lambda: quantize_static(source, out, _Reader(source, images), **kind)


def onnxruntime_tuned(style: str, source: str, images: Any, out: str) -> Made:
    """``quantize_static`` with what its documentation advises for the style: per channel, reduced, inputs only."""
    import onnxruntime
    from onnxruntime.quantization import quantize_static

    settings: dict[str, Any] = {"per_channel": True, "reduce_range": style == "cpu-reduced", "weight_type": _int8()}
    if style == "tensorrt":
        extra: dict[str, Any] = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
        extra |= {"AddQDQPairToWeight": True, "OpTypesToExcludeOutputQuantization": LAYERS}
        settings |= {"activation_type": _int8(), "op_types_to_quantize": LAYERS, "extra_options": extra}
    return onnxruntime.__version__, lambda: quantize_static(source, out, _Reader(source, images), **settings)


def nncf_defaults(style: str, source: str, images: Any, out: str) -> Made:
    """``nncf.quantize``; the same file for every style."""
    import nncf
    import onnx

    model, name = onnx.load(source), _input(source)
    batches = [{name: images[at : at + BATCH]} for at in range(0, len(images), BATCH)]
    data = nncf.Dataset(batches, lambda batch: batch)
    return nncf.__version__, lambda: onnx.save(nncf.quantize(model, data, subset_size=len(batches)), out)


def modelopt_max(style: str, source: str, images: Any, out: str) -> Made:
    """``modelopt.onnx.quantization`` by the largest magnitude; for TensorRT alone."""
    if style != "tensorrt":
        raise SystemExit("modelopt's graphs are for TensorRT alone")
    import modelopt
    import modelopt.onnx.quantization as quantization

    def make() -> None:
        quantization.quantize(
            source,
            quantize_mode="int8",
            calibration_data={_input(source): images},
            calibration_method="max",
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=out,
        )

    return modelopt.__version__, make


def aimet_per_channel(style: str, source: str, images: Any, out: str, weights: str = "int8") -> Made:
    """``QuantizationSimModel`` with its configuration for weights per channel; for TensorRT symmetric."""
    import tempfile
    from pathlib import Path

    import aimet_onnx
    import onnx
    from aimet_onnx.common import quantsim_config

    name, symmetric = _input(source), style == "tensorrt"
    folder = Path(quantsim_config.__file__).parent
    config = json.loads((folder / "default_config_per_channel.json").read_bytes())
    config["defaults"]["ops"]["is_symmetric"] = str(symmetric)
    batches = [{name: images[at : at + BATCH]} for at in range(0, len(images), BATCH)]

    def make() -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(config, file)
            file.flush()
            network = aimet_onnx.QuantizationSimModel(
                onnx.load(source),
                param_type=weights,
                config_file=file.name,
                dummy_input=batches[0],
                providers=["CPUExecutionProvider"],
            )
            network.compute_encodings(batches)
        made = network.to_onnx_qdq(
            prequantize_constants=True,
            export_int32_bias=not symmetric,
            force_activation_as="signed" if symmetric else "unsigned",
        )
        onnx.save(made, out)

    return aimet_onnx.__version__, make


PEERS: dict[str, Callable[[str, str, Any, str], Made]] = {
    "onnxruntime defaults": onnxruntime_defaults,
    "onnxruntime tuned": onnxruntime_tuned,
    "nncf": nncf_defaults,
    "modelopt": modelopt_max,
    "aimet": aimet_per_channel,
    "aimet int4": functools.partial(aimet_per_channel, weights="int4"),
}


class _Reader:
    """ONNX Runtime's CalibrationDataReader."""

    def __init__(self, source: str, images: Any) -> None:
        self._batches: Iterator[dict[str, Any]] = iter(
            [{_input(source): images[at : at + BATCH]} for at in range(0, len(images), BATCH)]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def _int8() -> Any:
    from onnxruntime.quantization import QuantType

    return QuantType.QInt8


def _input(source: str) -> str:
    import onnx

    return str(onnx.load(source).graph.input[0].name)


def main(peer: str, style: str, source: str, calibration: str, out: str) -> None:
    version, make = PEERS[peer](style, source, np.load(calibration), out)
    before = os.times()
    started = time.perf_counter()
    make()
    after = os.times()
    seconds = sum(after[:4]) - sum(before[:4])
    print(json.dumps({"version": version, "cpu_s": seconds, "wall_s": time.perf_counter() - started}))


if __name__ == "__main__":
    main(*sys.argv[1:])
