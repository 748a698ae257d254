"""What quantized numbers look like for a runtime, as data: element types, ranges, biases, and names in the graph."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

__all__ = [
    "BLOCKS",
    "CPU",
    "CPU_DYNAMIC",
    "CPU_REDUCED",
    "FP8",
    "LARGEST_FP8",
    "TENSORRT",
    "TENSORRT_HALF",
    "Names",
    "Scheme",
]

LEVELS = 127
"""Of a symmetric int8 there are as many steps below 0 as above: -128 is not used."""
REDUCED_LEVELS = 64
"""x86 without VNNI sums two products of 8-bit values in 16 bits: 2 · 255 · 64 is below 2**15 (``kernels``)."""
SMALLEST_FLOAT = float(np.finfo(np.float32).tiny)
SMALLEST_HALF_SCALE = 2.0**-20
"""Of the scales that float16 holds: below, where it is subnormal, fewer than four bits would be left of a scale."""

LARGEST_FP8 = 448
"""Of E4M3, whose numbers are not as far from each other near 0 as at its ends; there are no infinities."""
LARGEST_HALF_SCALE = float(np.finfo(np.float16).max) / 128
"""Above, the integers of a scale stand for numbers that float16 does not hold."""


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """What is appended to a tensor's name for what belongs to it, and in which order its constants are stored."""

    scale: str
    zero_point: str
    stored: str
    """Constants: the integers of a weight or a bias."""
    unquantized: str
    """Tensors: what a quantizer reads where the tensor is an output of the graph, which keeps its name."""
    quantized: str
    restored: str
    quantize: str
    """Nodes."""
    dequantize: str
    axis: str
    """Of weights whose output channels are not the first axis, which another layer may read along it."""
    order: tuple[Literal["stored", "scale", "zero_point"], ...]
    raw: bool
    """Whether scales and zero points are stored as bytes, or as lists of numbers."""


SLASHED = Names(
    scale="/scale",
    zero_point="/zero_point",
    stored="/quantized",
    unquantized="/unquantized",
    quantized="/quantized",
    restored="/dequantized",
    quantize="/QuantizeLinear",
    dequantize="/DequantizeLinear",
    axis="/axis{}",
    order=("stored", "scale", "zero_point"),
    raw=True,
)
UNDERSCORED = Names(
    scale="_scale",
    zero_point="_zero_point",
    stored="_quantized",
    unquantized="_QuantizeLinear_Input",
    quantized="_QuantizeLinear_Output",
    restored="_DequantizeLinear_Output",
    quantize="_QuantizeLinear",
    dequantize="_DequantizeLinear",
    axis="",
    order=("zero_point", "scale", "stored"),
    raw=False,
)
"""As ONNX Runtime's own quantizer names them, in the order in which it stores them."""


class Scheme(msgspec.Struct, frozen=True, kw_only=True):
    """How real numbers become integers, and where in the graph it is said."""

    name: Literal["tensorrt", "cpu", "cpu-dynamic", "int4", "fp8"]
    activations: Literal["int8", "uint8", "fp8"]
    symmetric: bool
    """Whether the zero point of activations is 0."""
    weight_levels: int = LEVELS
    """Weights are int8 from minus this to this at most, with zero point 0 and a scale for each output channel."""
    weight_bits: Literal[4, 8] = 8
    """Of the weights of a layer of which the plan says nothing (``planning.weight_levels``)."""
    activation_bits: Literal[4, 8] = 8
    """Of an activation of which the plan says nothing (``planning.integer_limits``)."""
    block_size: Literal[0, 32, 64, 128] = 0
    """Above 0: weights alone are quantized, to INT4, with a scale for each so many inputs (``blocks``)."""
    biases: Literal["float", "int32"]
    """int32: with the product of the scales of input and weights, as integer kernels add it."""
    placement: Literal["inputs", "kernels", "weights"]
    """Which tensors are quantized: see ``graph.quantization.placement``."""
    half_scales: bool = False
    """Whether every scale is a number that float16 holds, so that the graph can be written in half precision later."""
    smallest_scale: float
    """A scale below this is that of nothing but zeros."""
    empty_scale: float
    """What such a tensor gets."""
    order: Literal["in place", "breadth first"]
    """Of nodes: each new one beside what it belongs to, or all sorted by what they wait for."""
    names: Names

    @property
    def precision(self) -> Literal["int8", "int4", "fp8"]:
        """What a plan says of a layer that is written so."""
        return "int4" if self.block_size else "fp8" if self.activations == "fp8" else "int8"


TENSORRT = Scheme(
    name="tensorrt",
    activations="int8",
    symmetric=True,
    biases="float",
    placement="inputs",
    smallest_scale=1e-12 / LEVELS,
    empty_scale=1.0 / LEVELS,
    order="in place",
    names=SLASHED,
)
"""Explicit Q/DQ that TensorRT 8.5 to 11 read alike ("Explicit Quantization": IQuantizeLayer, IDequantizeLayer): zero
points are 0, activations have one scale, weights one per output channel, biases stay in floating point. The arithmetic
is that of Wu et al. 2020 (arXiv 2004.09602): scale = max|x| / 127, round half to even."""

TENSORRT_HALF = msgspec.structs.replace(TENSORRT, half_scales=True)

CPU = Scheme(
    name="cpu",
    activations="uint8",
    symmetric=False,
    biases="int32",
    placement="kernels",
    smallest_scale=SMALLEST_FLOAT,
    empty_scale=1.0,
    order="breadth first",
    names=UNDERSCORED,
)
"""What ONNX Runtime's integer kernels run fast (QLinearConv, QGemm, QLinearAdd, …)."""

CPU_REDUCED = msgspec.structs.replace(CPU, weight_levels=REDUCED_LEVELS)

CPU_DYNAMIC = msgspec.structs.replace(CPU_REDUCED, name="cpu-dynamic")
"""The range of activations is found while the network runs; always with a reduced range, as no exact arithmetic stands
in where this machine's integer product saturates. Written by ONNX Runtime (``graph.quantization.dynamic``)."""

BLOCKS = msgspec.structs.replace(TENSORRT, name="int4", placement="weights", block_size=32)
"""Weights alone, activations in floating point: for TensorRT as it is, for CPUs as MatMulNBits (``passes.nbits``)."""

FP8 = msgspec.structs.replace(TENSORRT, name="fp8", activations="fp8", weight_levels=LARGEST_FP8)
"""E4M3 in place of int8, weights too: as many bits, of which four are an exponent (Micikevicius et al. 2022, arXiv
2209.05433). A scale brings the largest number to 448, so steps are fine where most numbers are."""
