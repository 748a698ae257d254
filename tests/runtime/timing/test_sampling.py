from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.timing import sampling
from dlx_deploy.runtime.timing.latency import PERCENTILES, decide, rounds_for, summarise
from dlx_deploy.runtime.timing.sampling import Sampling, measure, sample

HUNDRED = (1_000_000 * np.random.default_rng(0).permutation(np.arange(1, 101))).tolist()
"""1 to 100 ms in no order."""


class Clock:
    """A clock that only moves when a timed call says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        monkeypatch.setattr(sampling.time, "perf_counter_ns", lambda: self.now)

    def takes(self, ns: int) -> Any:
        def call() -> None:
            self.now += ns

        return call


def test_every_round_runs_all_and_starts_with_another() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    timings = sample(calls, Sampling(4, warmup=2)).timings
    assert "".join(order) == "abcbcacababcbcacab"
    assert {name: len(values) for name, values in timings.items()} == {"a": 4, "b": 4, "c": 4}


def test_times_are_those_of_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    latencies = measure(
        {"slow": clock.takes(3_000_000), "fast": clock.takes(1_000)}, Sampling(40, 3, pace=0.0)
    ).latencies
    assert (latencies["slow"].p50_ms, latencies["slow"].mean_ms, latencies["slow"].n) == (3.0, 3.0, 40)
    assert (latencies["fast"].p90_ms, latencies["fast"].p90_upper_ms) == (0.001, 0.001)


def test_percentiles_are_nearest_ranks() -> None:
    latency = summarise(HUNDRED)
    assert (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.mean_ms) == (50, 90, 99, 50.5)
    assert (latency.p90_lower_ms, latency.p90_upper_ms) == (84, 96)
    assert (latency.blocks, latency.bursts, len(latency.block_p50_ms)) == (100, False, 20)
    few = summarise([1_000_000] * 28)
    assert few.p90_upper_ms is None


def test_every_percentile_has_its_bounds() -> None:
    """As many timings as p99 needs: 3,070, of which few are slow, and its bounds are around it."""
    n = rounds_for([50, 99])
    assert (rounds_for([]), rounds_for([50]), rounds_for([90]), n) == (300, 300, 300, 3070)
    latency = summarise((1_000 * np.random.default_rng(1).permutation(np.arange(1, n + 1))).tolist())
    assert [one.percentile for one in latency.percentiles] == list(PERCENTILES)
    for one in latency.percentiles:
        assert one.lower_ms is not None
        assert one.upper_ms is not None
        assert one.lower_ms < one.ms < one.upper_ms < n / 1000
    seen = latency.at(99)
    assert seen.ms == latency.p99_ms == 3.04
    assert [decide(seen, limit) for limit in (4.0, 3.04, 1.0)] == ["pass", "undecided", "fail"]
    assert [decide(seen, limit, noisy=True) for limit in (9.3, 8.0, 1.1, 0.9)] == ["pass", *["undecided"] * 2, "fail"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Sampling(0, 0), "must be at least 1 and 0"),
        (Sampling(1, -1), "must be at least 1 and 0"),
        (Sampling(1, min_s=2.0, max_s=1.0), "the seconds to measure are 2 to 1; must be a range from 0 on"),
        (Sampling(1, max_s=0.0), "the seconds to measure are 0 to 0; must be a range from 0 on, the latter over 0"),
        (Sampling(1, max_s=float("nan")), "the seconds to measure are 0 to nan"),
    ],
)
def test_out_of_range(asked: Sampling, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample({"a": lambda: None}, asked)


def test_a_warm_up_ends_when_timings_are_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first 35 rounds takes less than that before; three windows are alike at 60 rounds."""
    clock, rounds = Clock(monkeypatch), 0

    def call() -> None:
        nonlocal rounds
        rounds += 1
        clock.now += 1_000_000 * max(36 - rounds, 1)

    seen = sample({"a": call}, Sampling(5, pace=0.0))
    assert (seen.warmup_rounds, seen.steady, seen.timings["a"]) == (60, True, [1_000_000] * 5)


def test_a_warm_up_that_never_is_steady_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, rounds = Clock(monkeypatch), 0

    def call() -> None:
        nonlocal rounds
        rounds += 1
        clock.now += int(1_000_000 * 1.05**rounds)

    slower = sample({"a": call}, Sampling(5, pace=0.0))
    assert (slower.steady, slower.warmup_rounds) == (False, 130)  # ten seconds are over
    ways = itertools.cycle([*[1_000] * 10, *[2_000] * 10])
    many = sample({"a": lambda: clock.takes(next(ways))()}, Sampling(5, pace=0.0))
    assert (many.steady, many.warmup_rounds) == (False, 300)
    assert sample({"a": call}, Sampling(5, warmup=29, pace=0.0)).warmup_rounds == 29


@pytest.mark.parametrize(("settled", "max_s", "rounds"), [(True, 9.0, 40), (False, 9.0, 90), (False, 0.06, 60)])
def test_what_is_not_settled_is_measured_for_longer(
    monkeypatch: pytest.MonkeyPatch, settled: bool, max_s: float, rounds: int
) -> None:
    asked = []

    def ask(timings: Any) -> bool:
        asked.append(len(timings["a"]))
        return settled

    seen = sample(
        {"a": Clock(monkeypatch).takes(1_000_000)},
        Sampling(30, 0, 0.0, min_s=0.04, max_s=max_s, near_s=0.09, settled=ask),
    )
    assert (len(seen.timings["a"]), asked) == (rounds, [40])


@pytest.mark.parametrize(
    ("asked", "rounds", "cut"),
    [
        (Sampling(5, 0, 0.0, min_s=0.04), 40, False),
        (Sampling(50, 0, 0.0, min_s=0.04), 50, False),
        (Sampling(50, 0, 0.0, max_s=0.04), 40, True),
        (Sampling(50, 0, 0.0, max_s=0.0001), 1, True),
    ],
)
def test_a_measurement_takes_so_long(monkeypatch: pytest.MonkeyPatch, asked: Sampling, rounds: int, cut: bool) -> None:
    seen = sample({"a": Clock(monkeypatch).takes(1_000_000)}, asked)
    assert (len(seen.timings["a"]), seen.cut, seen.seconds) == (rounds, cut, pytest.approx(rounds / 1000))


def test_rounds_are_spread_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models of 1 ms at ten rounds a second: a pause after seven, less the work, then one that is not timed."""
    clock, naps, calls = Clock(monkeypatch), [], []

    def nap(seconds: float) -> None:
        naps.append(round(seconds, 6))
        clock.now += int(seconds * 1e9)

    def call() -> None:
        calls.append(clock.now)
        clock.now += 1_000_000

    monkeypatch.setattr(sampling.time, "sleep", nap)
    timings = sample({"a": call, "b": call}, Sampling(12, warmup=3, pace=10.0)).timings
    assert timings == {"a": [1_000_000] * 12, "b": [1_000_000] * 12}
    assert len(calls) == 2 * (12 + 3 + 1)
    assert naps == [0.686]


def test_what_is_slow_after_each_pause_counts_in_the_bound() -> None:
    """A seventh of all timings is slow, so p90 is: in blocks of as many rounds as a pause is apart it would not be."""
    timings = [3_000_000 if i % sampling.BURST == 0 else 1_000_000 for i in range(rounds_for([90]))]
    seen = summarise(timings).at(90)
    assert (seen.ms, seen.upper_ms) == (3.0, 3.0)
