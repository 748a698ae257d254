"""Whether a machine's INT8 kernels compute what a graph says; no torch.

x86 without a dot product (AVX2 alone) adds two products of an unsigned and a signed 8-bit value in 16 bits, which
saturate (VPMADDUBSW). ONNX Runtime has no switch for it, and another machine shows nothing of it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from dlx_deploy.graph.model import Index, load
from dlx_deploy.targets.host import Host, read_host

__all__ = ["has_full_range", "host_saturates"]

SAFE = 64
"""Weights up to this never overflow: 2 · 255 · 64 is below 2**15."""


def has_full_range(model: ModelProto) -> bool:
    """Whether a layer has int8 weights whose products an x86 CPU without a dot product cannot add up."""
    index = Index(model)
    stored = [t for t in index.initializers.values() if t.data_type == TensorProto.INT8 and len(t.dims) > 1]
    return any(int(np.abs(numpy_helper.to_array(t).astype(np.int16)).max(initial=0)) > SAFE for t in stored)


def host_saturates(model: bytes, host: Host | None = None) -> bool:
    """Whether this machine's own kernels would compute something else than ``model`` says."""
    host = host or _host()
    return host.arch == "x86_64" and not host.has_vnni and has_full_range(load(model))


@lru_cache(maxsize=1)
def _host() -> Host:
    return read_host()
