"""Whether this machine's INT8 kernels compute what a package was proven to."""

from __future__ import annotations

import platform
from typing import Optional

from ..linux import CPUINFO, DOT_PRODUCT
from ..untyped import JsonTable

__all__ = ["missing_dot_product"]


def missing_dot_product(meta: JsonTable, cpuinfo: str = CPUINFO, machine: str = "") -> Optional[str]:
    """Why the package whose ``package.json`` is ``meta`` would be answered wrong here; ``None`` if it would not be.

    With 8-bit weights of full range, an x86 CPU without a dot product (VNNI) adds two products in 16 bits, which
    saturate without a word. Where the system does not say what the CPU has, nothing is held against it.
    """
    if meta["execution"].get("dot_product") is not True or (machine or platform.machine()) not in ("x86_64", "AMD64"):
        return None
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as f:
            lines = [line for line in f if line.startswith("flags")]
    except OSError:
        return None
    if not lines or set(DOT_PRODUCT) & set(lines[0].split()):
        return None
    return (
        f"this CPU has neither of {', '.join(DOT_PRODUCT)}, and the package's 8-bit weights use their full range: its "
        "sums would saturate; run it on a CPU that has one, or build it for a target with quantization.reduce_range = "
        "true"
    )
