"""A target as data: what a board's parser reads, how its models are quantized and judged, and how fast it could be.

Peaks are dense: the marketing numbers of sparse tensor cores, or of GPU and DLA added up, have no place in a roofline.
A profile describes one module *in one power mode*; another mode is another profile.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dlx_deploy.runtime.backends.names import ENGINES, BackendName

__all__ = [
    "BACKENDS",
    "SCHEMA",
    "Dla",
    "Kind",
    "Precision",
    "Profile",
    "QuantizationStyle",
    "Roofline",
    "Software",
    "Style",
]

SCHEMA = 1
"""The version of the profile format that this code reads."""

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8", "int4", "fp4"]
"""What layers may run in; ``int4`` means 4-bit weights with floating-point arithmetic."""

Style = Literal["tensorrt", "cpu"]
"""Whose rules Q/DQ pairs follow: an explicitly quantized graph for TensorRT, or ONNX Runtime's kernels for CPUs."""

Kind = Literal["tensorrt", "tensorrt-rtx", "cpu"]

BACKENDS: dict[Kind, tuple[BackendName, ...]] = {
    "tensorrt": ("tensorrt", "onnxruntime-cuda", "onnxruntime-cpu"),
    "tensorrt-rtx": ("tensorrt-rtx", "onnxruntime-tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-cpu"),
    "cpu": ("onnxruntime-cpu",),
}
"""The order in which a package tries them, where the profile has no order of its own."""

ComputeCapability = Annotated[str, Meta(pattern=r"^[0-9]+\.[0-9]$")]
NotNegative = Annotated[float, Meta(ge=0.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Efficiency = Annotated[float, Meta(gt=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a profile."""


class QuantizationStyle(_Table, frozen=True, kw_only=True):
    """How Q/DQ pairs are placed and what they hold; weights are always symmetric int8."""

    style: Style
    activation: Literal["int8", "uint8"]
    symmetric: bool  # activations have zero point 0
    per_channel: bool  # one weight scale per output channel
    reduce_range: bool  # 7-bit weights: no overflow in the 16-bit sums of x86 without VNNI
    kernels: str = ""  # cpu style: whose integer kernels were timed (targets/kernels.toml); "": nobody's


class Roofline(_Table, frozen=True, kw_only=True):
    """Dense peaks and how much of them a network sees; 0 says that the hardware has no such unit."""

    fp32_tflops: Positive
    fp16_tflops: NotNegative = 0.0  # tensor cores with FP32 accumulation where there are any; also the BF16 peak
    int8_tops: NotNegative = 0.0
    fp8_tflops: NotNegative = 0.0
    fp4_tflops: NotNegative = 0.0
    memory_gb_per_s: Positive  # 1e9 bytes per second
    eff_compute: Efficiency  # of the peak, at batch 1
    eff_compute_batch16: Efficiency  # of the peak, at batch 16 and above
    eff_memory: Efficiency  # of the bandwidth
    launch_us: NotNegative  # per fused layer
    cores: Count = 0  # the CPU cores that the peaks count; 0 for a GPU

    def peak_tera(self, precision: Precision) -> float:
        """The dense peak in 1e12 operations per second (a multiply-accumulate is two); 0 if there is no such unit."""
        peaks: dict[Precision, float] = {
            "fp32": self.fp32_tflops,
            "fp16": self.fp16_tflops,
            "bf16": self.fp16_tflops,
            "int8": self.int8_tops,
            "fp8": self.fp8_tflops,
            "int4": self.fp16_tflops or self.fp32_tflops,  # of weights alone: the arithmetic is floating
            "fp4": self.fp4_tflops,
        }
        return peaks[precision]


class Dla(_Table, frozen=True, kw_only=True):
    """The deep-learning accelerators beside a Jetson's GPU."""

    cores: Count = 0
    version: Literal["", "nvdla1", "nvdla2"] = ""
    int8_tops: NotNegative = 0.0  # dense, all cores together
    fp16_tflops: NotNegative = 0.0  # 0: none, or not known
    tensorrt_ranges: tuple[tuple[str, str], ...] = ()  # first and last TensorRT version that can use them


class Software(_Table, frozen=True, kw_only=True):
    """What the vendor ships for this hardware; an empty string: nothing, or not pinned."""

    jetpack: str = ""
    l4t: str = ""
    cuda: str = ""
    tensorrt: str = ""  # the version that ``opset`` and ``precisions`` were read from
    tensorrt_rtx: str = ""
    tensorrt_known: tuple[str, ...] = ()  # versions documented for this hardware, oldest first
    python: str = ""


class Profile(_Table, frozen=True, kw_only=True):
    """All that the pipeline knows of a target."""

    schema: int
    name: Name
    title: Annotated[str, Meta(min_length=1)]
    kind: Kind
    arch: Literal["aarch64", "x86_64"]  # of the CPU that runs the package
    opset: int  # the newest that is safe for its parser
    precisions: Annotated[tuple[Precision, ...], Meta(min_length=1)]
    judge: Literal["exact-qdq", "native"]  # how the build host runs the quantized graph to judge its accuracy
    quantization: QuantizationStyle
    roofline: Roofline
    compute_capability: Annotated[str, Meta(pattern=r"^([0-9]+\.[0-9])?$")] = ""  # "" without an NVIDIA GPU
    engine_capabilities: tuple[ComputeCapability, ...] = ()  # of one engine for several; empty: compute_capability
    backends: tuple[BackendName, ...] = ()  # what runs the package, best first; empty: as all of its kind
    sm_count: Count = 0  # streaming multiprocessors that are on in this power mode
    clock_mhz: NotNegative = 0.0  # of the GPU, or of the CPU where the kind is cpu, in this power mode
    memory_gib: NotNegative = 0.0  # shared with the CPU on a Jetson; 0: not known
    workspace_mib: Count = 0  # the builder's scratch memory at most; 0: no limit, or no builder
    power_mode: str = ""  # the mode that the roofline describes
    power_modes: tuple[str, ...] = ()
    sparsity_2_4: bool = False  # 2:4 sparse tensor cores
    device_tree_model: str = ""  # the target is this host, or a board, only if /proc/device-tree/model holds this text
    dla: Dla = Dla()
    software: Software = Software()

    @property
    def backend_order(self) -> tuple[BackendName, ...]:
        """What runs the package, best first."""
        return self.backends or BACKENDS[self.kind]

    @property
    def builds_engines(self) -> bool:
        """Whether TensorRT itself runs the package, so that an engine is built from its ONNX."""
        return self.backend_order[0] in ENGINES
