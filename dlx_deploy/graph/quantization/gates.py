"""Gates that clip, as sums and products that runtimes have integer kernels for.

HardSigmoid is ``clip(alpha * x + beta, 0, 1)``: the integers of ``x`` read with a scale ``alpha`` times as large, plus
a constant, and a quantizer that clips. HardSwish is ``x`` times that, with 1/6 and 1/2. Without an integer kernel of
their own these would be islands of floating point between layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from dlx_deploy.graph.model import float_attribute

__all__ = ["GATES", "GATE_LEVELS", "Gate", "Integers", "clips_to_unit", "gate_of"]

GATES = ("HardSwish", "HardSigmoid")
"""The operators."""
GATE_LEVELS = 255
"""A gate inside is 0 to 1 whatever is calibrated: so many steps."""
SLACK = 1e-6
"""How far beyond 1 a quantizer may reach that clips: 255 steps of float32(1 / 255) are a little more."""


@dataclass(frozen=True)
class Gate:
    """``nodes`` compute what one node did, the last of them under its name; ``constants``: what they read."""

    nodes: Sequence[NodeProto]
    constants: dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Integers:
    """A quantized tensor: the name of its integers, of what restores them, and their zero point; ``scale``: float32."""

    name: str
    restored: str
    scale: np.float32
    zero_point: str


def gate_of(node: NodeProto, x: Integers, clips: bool) -> Gate:
    """HardSwish or HardSigmoid of ``x``, uint8. ``clips``: the quantizer behind the node clips to 0 and 1 itself."""
    swish = node.op_type == "HardSwish"
    alpha = 1 / 6 if swish else float_attribute(node, "alpha", 0.2)
    beta = 0.5 if swish else float_attribute(node, "beta", 0.5)
    stem, out = node.name, node.output[0]
    scaled, shift, total = f"{stem}/scaled", f"{stem}/shift", f"{stem}/sum"
    constants: dict[str, NDArray[np.generic]] = {
        f"{scaled}/scale": np.asarray(np.float32(alpha) * x.scale),
        # One step above or below zero: a scale is positive, and a constant that is 0 has one too.
        f"{shift}/quantized": np.asarray(beta >= 0, np.uint8),
        f"{shift}/scale": np.asarray(abs(beta) or 1.0, np.float32),
        f"{shift}/zero_point": np.asarray(0 if beta > 0 else 1, np.uint8),
    }
    nodes = [
        _restored([x.name, f"{scaled}/scale", x.zero_point], scaled),
        _restored([f"{shift}/{part}" for part in ("quantized", "scale", "zero_point")], shift),
        helper.make_node("Add", [scaled, shift], [total], name=total),
    ]
    if swish:
        gate = f"{stem}/gate"
        ends = [f"{gate}/scale", f"{gate}/zero_point"]
        constants |= {ends[0]: np.asarray(1 / GATE_LEVELS, np.float32), ends[1]: np.asarray(0, np.uint8)}
        quantize = helper.make_node("QuantizeLinear", [total, *ends], [f"{gate}/quantized"], name=f"{gate}/quantized")
        product = helper.make_node("Mul", [x.restored, gate], [out], name=stem)
        return Gate([*nodes, quantize, _restored([f"{gate}/quantized", *ends], gate), product], constants)
    if clips:
        nodes[-1].output[0], nodes[-1].name = out, stem
        return Gate(nodes, constants)
    limits = [f"{stem}/lowest", f"{stem}/highest"]
    constants |= {name: np.asarray(value, np.float32) for name, value in zip(limits, (0, 1), strict=True)}
    return Gate([*nodes, helper.make_node("Clip", [total, *limits], [out], name=stem)], constants)


def clips_to_unit(scale: float, zero_point: int) -> bool:
    """Whether a quantizer to uint8 gives nothing below 0 and nothing above 1."""
    return zero_point == 0 and scale * GATE_LEVELS <= 1 + SLACK


def _restored(inputs: Sequence[str], out: str) -> NodeProto:
    return helper.make_node("DequantizeLinear", list(inputs), [out], name=out)
