"""What verification finds, as files: ``accuracy.json`` and ``latency.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

__all__ = ["REFERENCE", "Accuracy", "Latencies", "Pairing", "Row", "Timing", "read_accuracy", "read_latencies"]

REFERENCE = "teacher"
"""The candidate that all are held against."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One model on the test split. b: teacher right and model wrong; c: the reverse."""

    model: str
    top1: float
    b: int
    c: int
    size_bytes: int
    macs: int
    parameters: int


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """``accuracy.json``: deterministic, so it can be shipped. ``judge``: how the graphs were run.

    ``largest_class`` counts the test samples of the most frequent label, 0 where that is not known: who always answers
    it is right so often.
    """

    schema: int
    judge: str
    n: int
    shipped: str
    rows: tuple[Row, ...]
    largest_class: int = 0

    def row(self, model: str) -> Row:
        """The row of ``model``."""
        return next(r for r in self.rows if r.model == model)


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """One model's latency at batch 1. A measurement has bounds on p90 (upper: ``None`` with too few timings, lower: 0;
    ``by_slowest``: the upper one is a multiple of the slowest timing, as they come in bursts), an estimate has a range.
    """

    model: str
    p50_ms: float
    p90_ms: float | None = None
    p90_upper_ms: float | None = None
    p90_lower_ms: float | None = None
    by_slowest: bool = False
    low_ms: float | None = None
    high_ms: float | None = None


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as fast ``quantized`` is as ``against``, the network that it was made from, by paired timings."""

    against: str
    ratio: float
    lower: float | None
    upper: float | None


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """``latency.json``: ``kind`` says what the numbers are, ``where`` on what they hold."""

    schema: int
    kind: str
    where: str
    rows: tuple[Timing, ...]
    int8_speedup: Pairing | None = None


def read_accuracy(outputs: Mapping[str, Path]) -> Accuracy:
    """The ``accuracy.json`` among a verification's outputs."""
    return msgspec.json.decode(outputs["accuracy.json"].read_bytes(), type=Accuracy)


def read_latencies(outputs: Mapping[str, Path]) -> Latencies:
    """The ``latency.json`` among a verification's outputs."""
    return msgspec.json.decode(outputs["latency.json"].read_bytes(), type=Latencies)
