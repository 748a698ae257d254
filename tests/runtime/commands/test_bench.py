from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.commands import bench
from dlx_deploy.runtime.commands.bench import BenchOptions, bench_package, measure, sample, summarise
from dlx_deploy.runtime.errors import BudgetMissed, InputError, Undecided
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.telling import silent

HUNDRED = (1_000_000 * np.random.default_rng(0).permutation(np.arange(1, 101))).tolist()
"""1 to 100 ms in no order."""


class Clock:
    """A clock that only moves when a timed call says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        monkeypatch.setattr(bench.time, "perf_counter_ns", lambda: self.now)

    def takes(self, ns: int) -> Any:
        def call() -> None:
            self.now += ns

        return call


def test_every_round_runs_all_and_starts_with_another() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    timings = sample(calls, rounds=4, warmup=2)
    assert "".join(order) == "abcbcacababcbcacab"
    assert {name: len(values) for name, values in timings.items()} == {"a": 4, "b": 4, "c": 4}


def test_times_are_those_of_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    latencies = measure({"slow": clock.takes(3_000_000), "fast": clock.takes(1_000)}, rounds=40, warmup=3, pace=0.0)
    assert (latencies["slow"].p50_ms, latencies["slow"].mean_ms, latencies["slow"].n) == (3.0, 3.0, 40)
    assert (latencies["fast"].p90_ms, latencies["fast"].p90_upper_ms) == (0.001, 0.001)


def test_percentiles_are_nearest_ranks() -> None:
    latency = summarise(HUNDRED)
    assert (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.mean_ms) == (50, 90, 99, 50.5)
    assert (latency.p90_lower_ms, latency.p90_upper_ms) == (84, 96)
    assert (latency.blocks, latency.bursts, len(latency.block_p50_ms)) == (100, False, 20)
    few = summarise([1_000_000] * 28)
    assert few.p90_upper_ms is None


@pytest.mark.parametrize(("rounds", "warmup"), [(0, 0), (1, -1)])
def test_rounds_out_of_range(rounds: int, warmup: int) -> None:
    with pytest.raises(InputError, match="must be at least 1 and 0"):
        sample({"a": lambda: None}, rounds, warmup)


def test_bench_of_a_package(predictor: Predictor) -> None:
    result = bench_package(predictor, BenchOptions(rounds=50, batch=6))
    assert result.batch == 6
    assert 0 < result.latency.p50_ms <= result.latency.p90_ms <= result.latency.p99_ms
    assert result.images_per_second == pytest.approx(6_000 / result.latency.p50_ms)
    assert (result.verdict, result.failure(), result.explain()) == (None, None, "")
    assert json.loads(json.dumps(result.to_dict()))["machine"]["numpy"] == np.__version__


def test_bench_feeds_golden_images(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = set()

    class Recorder:
        package, tell = predictor.package, staticmethod(silent)

        def predict(self, images: np.ndarray) -> None:
            shapes.add(images.shape)
            np.testing.assert_array_equal(images[4], self.package.golden_inputs["images"][0])

    bench_package(Recorder(), BenchOptions(rounds=2, warmup=0, batch=5))  # type: ignore[arg-type]
    assert shapes == {(5, 6, 4, 3)}


def test_bench_reads_what_is_named_in_turn(predictor: Predictor) -> None:
    given: list[object] = []

    class Recorder:
        package, tell = predictor.package, staticmethod(silent)

        def predict(self, names: object) -> None:
            given.append(names)

    options = BenchOptions(rounds=2, warmup=1, batch=2, inputs=("a.png", "b.png", "c.png"))
    assert bench_package(Recorder(), options).inputs == 3  # type: ignore[arg-type]
    assert given == [["a.png", "b.png"], ["c.png", "a.png"], ["b.png", "c.png"]]


@pytest.mark.parametrize(
    ("budget", "verdict", "failure", "words"),
    [
        (96.0, "pass", None, "budget 96 ms: met"),
        (95.9, "undecided", Undecided, "undecided; measure with more rounds, for instance 400"),
        (84.0, "undecided", Undecided, "between 84 ms and 96 ms (each at 0.95 confidence, 100 rounds in 100 blocks)"),
        (83.9, "fail", BudgetMissed, "budget 83.9 ms: missed"),
    ],
)
def test_budget(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, budget: float, verdict: str, failure: Any, words: str
) -> None:
    monkeypatch.setattr(bench, "sample", lambda calls, rounds, warmup, *rest: {"predict": HUNDRED})
    result = bench_package(predictor, BenchOptions(max_p90_ms=budget))
    assert result.verdict == verdict
    assert type(result.failure()) is (failure or type(None))
    assert words in result.explain()


def test_bursts_are_undecided(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of 33 timings in 300 is more than a tenth, and 29 of 300 would be less: one burst cannot say."""
    timings = [1_000_000] * 150 + [9_000_000] * 29 + [1_000_000] * 121
    monkeypatch.setattr(bench, "sample", lambda calls, rounds, warmup, *rest: {"predict": timings})
    result = bench_package(predictor, BenchOptions(max_p90_ms=5))
    assert (result.verdict, result.latency.p90_ms, result.latency.p90_upper_ms) == ("undecided", 1, 27)
    assert isinstance(result.failure(), Undecided)
    assert "at most 27 ms (3 times the slowest: they come in bursts)" in result.explain()
    assert "measure with more rounds, for instance 1200, or on a quieter machine" in result.explain()
    assert bench_package(predictor, BenchOptions(max_p90_ms=26.9)).verdict == "undecided"
    far = bench_package(predictor, BenchOptions(max_p90_ms=27))
    assert (far.verdict, far.failure()) == ("pass", None)


def test_a_verdict_takes_time(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    paces = []

    def watched(calls: Any, rounds: int, warmup: int, pace: float, tell: Any) -> Any:
        paces.append(pace)
        return {"predict": HUNDRED}

    monkeypatch.setattr(bench, "sample", watched)
    bench_package(predictor, BenchOptions(max_p90_ms=5))
    bench_package(predictor, BenchOptions())
    assert paces == [bench.PACE, 0.0]


def test_rounds_are_spread_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models of 1 ms at ten rounds a second: pauses of half a second less the work, then one that is not timed."""
    clock, naps, calls = Clock(monkeypatch), [], []

    def nap(seconds: float) -> None:
        naps.append(round(seconds, 6))
        clock.now += int(seconds * 1e9)

    def call() -> None:
        calls.append(clock.now)
        clock.now += 1_000_000

    monkeypatch.setattr(bench.time, "sleep", nap)
    timings = sample({"a": call, "b": call}, rounds=12, warmup=3, pace=10.0)
    assert timings == {"a": [1_000_000] * 12, "b": [1_000_000] * 12}
    assert len(calls) == 2 * (12 + 3 + 2)  # two pauses, after five rounds each
    assert naps == [0.49, 0.488]


def test_few_rounds_are_undecided(predictor: Predictor) -> None:
    result = bench_package(predictor, BenchOptions(rounds=5, max_p90_ms=10_000))
    assert result.verdict == "undecided"
    assert "and an unknown limit" in result.explain()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BenchOptions(batch=0), "batch is 0; must be 1 or more"),
        (BenchOptions(batch=2_000_000), "batch is 2000000; must be 1 or more, and at most 65536"),
        (BenchOptions(rounds=10**12), "rounds is 1000000000000; must be 1 or more, and at most 1000000000"),
        (BenchOptions(max_p90_ms=float("inf")), "the p90 budget is inf ms; must be over 0 and finite"),
        (BenchOptions(max_p90_ms=0), "the p90 budget is 0 ms; must be over 0"),
        (BenchOptions(max_p90_ms=float("nan")), "the p90 budget is nan ms"),
        (BenchOptions(rounds=0), "rounds is 0"),
    ],
)
def test_options_out_of_range(predictor: Predictor, options: BenchOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bench_package(predictor, options)
