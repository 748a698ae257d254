"""Static INT8 quantization of ONNX classifiers, in two styles; no torch.

``tensorrt``: explicit symmetric Q/DQ that TensorRT 8.5 to 11 read alike. ``cpu``: what ONNX Runtime's kernels run fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.onnx_model import load, to_bytes
from dlx_deploy.nn.quantization import cpu_style, tensorrt_style
from dlx_deploy.nn.quantization.calibrate import Method, Ranges, activation_ranges
from dlx_deploy.nn.quantization.placement import layer_precision
from dlx_deploy.nn.quantization.rules import check_tensorrt_rules

__all__ = [
    "Method",
    "QuantizationPlan",
    "QuantizationReport",
    "Ranges",
    "activation_ranges",
    "check_tensorrt_rules",
    "layer_precision",
    "quantize_static",
]


@dataclass(frozen=True)
class QuantizationPlan:
    """What to do: the style, how ranges are found, and node-name patterns (fnmatch) that stay in floating point.

    ``reduce_range`` concerns the CPU style alone.
    """

    style: Literal["tensorrt", "cpu"]
    reduce_range: bool = False
    method: Method = "minmax"
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuantizationReport:
    """What was done: node name → ``int8`` or ``fp32`` for each layer with weights, and how many tensors got Q/DQ."""

    layers: dict[str, str]
    activations: int

    @property
    def int8_share(self) -> float:
        """The share of layers (0..1) that compute on int8."""
        return sum(p == "int8" for p in self.layers.values()) / len(self.layers) if self.layers else 0.0


def quantize_static(source: Path, out: Path, images: NDArray[np.uint8], plan: QuantizationPlan) -> QuantizationReport:
    """Quantize the float32 model in ``source`` with calibration ``images`` (uint8[N, H, W, C], NHWC, 0..255).

    Raises:
        ConfigError: no images, or a pattern in ``plan.exclude`` matches no node.
        StageFailed: nothing was left to quantize, or the result breaks a rule of the target's parser.
    """
    model = load(source)
    quantized = _quantized(model, images, plan)
    onnx.checker.check_model(quantized, full_check=True)
    if plan.style == "tensorrt" and (findings := check_tensorrt_rules(quantized)):
        raise StageFailed(f"{source.name}: the quantized graph breaks {len(findings)} rules: {'; '.join(findings[:5])}")
    out.write_bytes(to_bytes(quantized))
    activations = sum(n.op_type == "QuantizeLinear" for n in quantized.graph.node)
    return QuantizationReport(layers=layer_precision(quantized), activations=activations)


def _quantized(model: ModelProto, images: NDArray[np.uint8], plan: QuantizationPlan) -> ModelProto:
    tensorrt = plan.style == "tensorrt"
    tensors = (tensorrt_style if tensorrt else cpu_style).tensors_to_quantize(model, plan.exclude)
    if not tensors:
        raise StageFailed(
            f"no layer is left to quantize (quantize.exclude = {list(plan.exclude)!r}); set quantize.precision = 'fp32'"
        )
    ranges = activation_ranges(model, images, tensors, plan.method, symmetric=tensorrt)
    if tensorrt:
        return tensorrt_style.insert_qdq(model, ranges, plan.exclude)
    return cpu_style.quantize(model, ranges, plan.reduce_range, plan.exclude)
