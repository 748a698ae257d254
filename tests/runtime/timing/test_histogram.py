"""Histograms: every timing is in one bin, a slow tail costs the body no resolution, and others' are not believed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.runtime.timing.histogram import BINS, histogram_of
from dlx_deploy.runtime.timing.latency import summarise


@given(st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=500))
def test_every_timing_is_counted_once(timings: list[float]) -> None:
    seen = histogram_of(sorted(timings))
    assert sum(seen.counts) + seen.slower == len(timings)
    assert 1 <= len(seen.counts) <= BINS
    assert seen.is_of(len(timings))
    assert seen.fastest_ms == pytest.approx(min(timings), rel=1e-5)
    assert seen.slowest_ms == pytest.approx(max(timings), rel=1e-5)


def test_few_slow_ones_are_a_number_and_cost_no_resolution() -> None:
    body = [1 + i / 1000 for i in range(995)]
    seen = histogram_of([*body, 50.0, 60.0, 70.0, 80.0, 90.0])
    assert (seen.slower, seen.slowest_ms) == (5, 90.0)
    assert len(seen.counts) > 20
    assert max(seen.counts) < 60


def test_equal_timings_are_one_bin() -> None:
    seen = histogram_of([2.0] * 300)
    assert (seen.counts, seen.width_ms, seen.slower) == ((300,), 0.0, 0)
    assert seen.is_of(300)


def test_a_latency_has_one_that_stays_small() -> None:
    latency = summarise([1_000_000 + 997 * (i * i % 10_007) for i in range(100_000)])
    assert latency.histogram is not None
    assert latency.histogram.is_of(100_000)
    assert len(json.dumps(asdict(latency.histogram))) < 700


@pytest.mark.parametrize(
    "change",
    [
        {"counts": ()},
        {"counts": (1,) * 65, "slower": -62},
        {"counts": (4, -1)},
        {"slower": 1},
        {"width_ms": float("nan")},
        {"fastest_ms": -1.0},
        {"slowest_ms": float("inf")},
        {"slowest_ms": 0.5},
        {"width_ms": 1e308},
        {"width_ms": 1.1},
        {"width_ms": 1e300, "slowest_ms": 1e308},
        {"fastest_ms": 2e9, "slowest_ms": 2e9, "width_ms": 0.0},
    ],
)
def test_what_is_no_histogram_of_so_many_is_seen(change: dict[str, object]) -> None:
    seen = histogram_of([1.0, 2.0, 3.0])
    assert seen.is_of(3)
    assert not replace(seen, **change).is_of(3)  # type: ignore[arg-type]
