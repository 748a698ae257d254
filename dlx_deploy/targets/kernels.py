"""Which operators a CPU computes faster on integers than in floating point between them: a table of measurements.

Between layers on INT8 an operator can read integers and give integers, or it can be an island: dequantized before,
computed in float32, quantized behind. ``benchmarks/compression/kernels.py`` times both on ONNX Runtime's kernels and
writes the table. A CPU that nobody measured has none, and its graphs are written as before there was one.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dlx_deploy.config.strict import decode, read_toml

__all__ = ["NOT_MEASURED", "CpuKernels", "IntegerKernels", "KernelTable", "integer_kernels", "kernel_table"]

_MEMBER = "kernels.toml"
Ratio = Annotated[float, Meta(gt=0.0)]


class IntegerKernels(msgspec.Struct, frozen=True, kw_only=True):
    """What of a CPU's integer kernels pays. ``operators``: ONNX operators (``Resize:linear``: with its mode, where that
    is not nearest), beside those that every graph has so.

    ``float_images``: (channels of an image, side of the kernel) of first convolutions that do not pay, for images of at
    least ``least_side`` px.
    """

    operators: frozenset[str] = frozenset()
    float_images: frozenset[tuple[int, int]] = frozenset()
    least_side: int = 0


NOT_MEASURED = IntegerKernels()
"""What is written for a CPU without a table."""


class CpuKernels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Measured on one kind of CPU. ``speedup``: operator → time as an island over time on integers, the median of
    the shapes that were timed; ``image_convolution``: channels of an image x side of the kernel → the same of a
    network's beginning, the highest.
    """

    title: str
    machine: str
    onnxruntime: str
    date: str
    speedup: dict[str, Ratio]
    image_convolution: dict[str, Ratio]


class KernelTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``least_speedup``: from which on an operator passes integers on. ``most_image_convolution``: up to which the
    first convolution stays in floating point, on images of at least ``least_image_side`` px.
    """

    schema: Literal[1]
    least_speedup: Ratio
    most_image_convolution: Ratio
    least_image_side: int
    cpus: dict[str, CpuKernels]

    def paying(self, cpu: str) -> IntegerKernels:
        """What pays on ``cpu``, one of ``cpus``."""
        measured = self.cpus[cpu]
        operators = frozenset(name for name, ratio in measured.speedup.items() if ratio >= self.least_speedup)
        slower = [name for name, ratio in measured.image_convolution.items() if ratio <= self.most_image_convolution]
        images = frozenset((int(channels), int(side)) for channels, side in (name.split("x") for name in slower))
        return IntegerKernels(operators=operators, float_images=images, least_side=self.least_image_side)


@functools.cache
def kernel_table() -> KernelTable:
    """The table that comes with this version."""
    raw = read_toml(files(__package__).joinpath(_MEMBER), _MEMBER, "install dlx-deploy again")
    return decode(raw, KernelTable, _MEMBER)


def integer_kernels(cpu: str) -> IntegerKernels:
    """What pays on ``cpu``, a checked profile's ``quantization.kernels``; empty: nobody measured."""
    return kernel_table().paying(cpu) if cpu else NOT_MEASURED
