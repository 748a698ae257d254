"""What verification finds of latencies, as a file: ``latency.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from dlx_deploy.runtime.timing.histogram import Histogram
from dlx_deploy.runtime.timing.latency import Percentile
from dlx_deploy.runtime.timing.state import MachineState

__all__ = ["MEASURED", "SCHEMA", "Latencies", "Pairing", "Timing", "read_latencies"]

SCHEMA = 1
MEASURED = "measured"
"""What a timing on the target itself is called."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """One model's latency at batch 1. A measurement has ``percentiles`` with bounds, those of p90 beside (upper:
    ``None`` with too few timings, lower: 0; ``by_slowest``: the upper one is a multiple of the slowest timing, as they
    come in bursts) and a ``histogram``, an estimate has a range.
    """

    model: str
    p50_ms: float
    p90_ms: float | None = None
    p90_upper_ms: float | None = None
    p90_lower_ms: float | None = None
    by_slowest: bool = False
    percentiles: tuple[Percentile, ...] = ()
    low_ms: float | None = None
    high_ms: float | None = None
    histogram: Histogram | None = None

    def at(self, percentile: int) -> Percentile:
        """A percentile that was measured."""
        return next(one for one in self.percentiles if one.percentile == percentile)


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as fast ``quantized`` is as ``against``, the network that it was made from, by paired timings."""

    against: str
    ratio: float
    lower: float | None
    upper: float | None


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """``latency.json``: ``kind`` says what the numbers are, ``where`` on what; ``state``: what the machine did."""

    kind: str
    where: str
    rows: tuple[Timing, ...]
    int8_speedup: Pairing | None = None
    state: MachineState | None = None
    schema: int = SCHEMA


def read_latencies(outputs: Mapping[str, Path]) -> Latencies:
    """The ``latency.json`` among a verification's outputs."""
    return msgspec.json.decode(outputs["latency.json"].read_bytes(), type=Latencies)
