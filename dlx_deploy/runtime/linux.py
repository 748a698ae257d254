"""Where Linux says what a machine is, and in which words. Standard library only."""

from __future__ import annotations

__all__ = ["CPUINFO", "DEVICE_TREE_MODEL", "DOT_PRODUCT"]

CPUINFO, DEVICE_TREE_MODEL = "/proc/cpuinfo", "/proc/device-tree/model"
DOT_PRODUCT = ("avx512_vnni", "avx_vnni")
"""Flags of x86 CPUs that have VPDPBUSD, the 8-bit dot product, in one of its two encodings."""
