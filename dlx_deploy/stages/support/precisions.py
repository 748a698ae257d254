"""What precisions below FP16 and beside it need: of a target, and of the rest of a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from dlx_deploy.config import Quantize
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Setup

__all__ = ["NEEDS", "OLDEST_OPSET", "check_below", "refuse"]

NEEDS = {
    "int4": "INT4 weights need TensorRT 10 and compute capability 8.0, or a CPU",
    "bf16": "BF16 needs TensorRT 9 and compute capability 8.0; ONNX Runtime has no kernels for it on CPUs",
    "fp8": "FP8 came with compute capability 8.9: Orin (8.7), Xavier and CPUs have none",
}
"""What is to be said where a target does not run it."""
OLDEST_OPSET = {"int4": 20, "fp8": 19, "bf16": 13}
"""What they need of a graph (``graph.quantization.blocks``, ``.fp8``)."""


def check_below(setup: Setup[Quantize], precision: str) -> None:
    """Nothing, if the rest of the configuration goes with INT4 weights, FP8 or BF16.

    Raises:
        ConfigError: it does not.
    """
    params, opset = setup.params, setup.config.export.opset or setup.target.opset
    oldest = OLDEST_OPSET[precision]
    if opset < oldest:
        raise ConfigError(
            f"quantize.precision is {precision!r}, and the graph's opset {opset}; rule: {oldest} or newer; set "
            "export.opset, or quantize.precision to 'int8'"
        )
    if precision == "int4" and params.activations != "auto":
        raise ConfigError(
            f"quantize.precision is 'int4' and quantize.activations {params.activations!r}; rule: weights alone are "
            "INT4, activations stay in floating point; leave it out"
        )
    if precision == "fp8" and params.calibration in ("entropy", "mse"):
        raise ConfigError(
            f"quantize.precision is 'fp8' and quantize.calibration {params.calibration!r}, which seeks ranges for even "
            "steps; rule: 'minmax' or 'percentile'"
        )


def refuse(key: str, value: str, runs: Sequence[str]) -> None:
    """Nothing, if the target runs ``value``, of what it runs beside fp32, or is to choose.

    Raises:
        ConfigError: it does not; with what that needs.
    """
    if value not in ("auto", "fp32", *runs):
        allowed = ", ".join(["fp32", *runs])
        why = f" ({NEEDS[value]})" if value in NEEDS else ""
        raise ConfigError(
            f"quantize.{key} is {value!r}, which this target does not run{why}; it runs {allowed}; use 'auto'"
        )
