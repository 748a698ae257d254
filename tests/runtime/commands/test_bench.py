from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.runtime.commands import bench
from dlx_deploy.runtime.commands.bench import BenchOptions, bench_package
from dlx_deploy.runtime.errors import BudgetMissed, InputError, SelfTestFailed, Undecided
from dlx_deploy.runtime.predictor import Predictor, Run
from dlx_deploy.runtime.timing.sampling import PACE, Sampled, Sampling
from dlx_deploy.runtime.timing.state import MachineState, Snapshot

HUNDRED = (1_000_000 * np.random.default_rng(0).permutation(np.arange(1, 101))).tolist()
"""1 to 100 ms in no order."""


def sampled(timings: list[int], cut: bool = False) -> Sampled:
    return Sampled({"predict": timings}, 30, True, 1.0, cut)


def test_bench_of_a_package(predictor: Predictor) -> None:
    result = bench_package(predictor, BenchOptions(rounds=50, batches=(6,)))
    assert result.batch == 6
    assert 0 < result.latency.p50_ms <= result.latency.p90_ms <= result.latency.p99_ms
    assert result.images_per_second == pytest.approx(6_000 / result.latency.p50_ms)
    assert (result.verdict, result.failure(), result.explain()) == (None, None, "")
    assert json.loads(json.dumps(result.to_dict()))["machine"]["numpy"] == np.__version__


def test_bench_feeds_golden_images(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    given, predict = [], Predictor.predict
    monkeypatch.setattr(Predictor, "predict", lambda self, images: given.append(images) or predict(self, images))
    result = bench_package(predictor, BenchOptions(rounds=2, warmup=0, batches=(5,)))
    assert [images.shape for images in given] == [(5, 6, 4, 3)] * 2
    np.testing.assert_array_equal(given[0][4], predictor.package.golden_inputs["images"][0])
    assert result.checked == 3  # both, and the last


def test_bench_reads_what_is_named_in_turn(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given, predict = [], Predictor.predict
    monkeypatch.setattr(Predictor, "predict", lambda self, names: given.append(names) or predict(self, names))
    paths = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((6, 4, 3), 40 * i, np.uint8)).save(path)
    a, b, c = paths
    result = bench_package(predictor, BenchOptions(rounds=2, warmup=1, batches=(2,), inputs=(a, b, c)))
    assert given == [[a, b], [c, a], [b, c]]
    assert (result.inputs, result.checked) == (3, 4)
    assert result.phases is not None
    assert result.phases.pre_ms > 0


@pytest.mark.parametrize("wrong_from", [0, 35])
def test_what_is_fast_by_answering_something_else_is_refused(predictor: Predictor, wrong_from: int) -> None:
    """A backend that is right at first, as in a self-test, too; streams are held to it alike."""
    calls = itertools.count()

    def other(run: Run) -> Run:
        return lambda names, feeds: [v[::-1] * (-1 if next(calls) >= wrong_from else 1) for v in run(names, feeds)]

    with pytest.raises(SelfTestFailed, match=r"a timed run gave other outputs than it must .* Its latency says"):
        bench_package(predictor.through(other), BenchOptions(rounds=40))
    options = BenchOptions(rounds=40, warmup=3)
    assert bench_package(predictor, options).checked == 17
    wrong_from = 0  # how often each stream asks is not known
    with pytest.raises(SelfTestFailed, match="a timed run gave other outputs"):
        bench_package(predictor, options, [predictor.through(other)])


def test_the_parts_of_a_call_make_the_whole(predictor: Predictor) -> None:
    result = bench_package(predictor, BenchOptions(rounds=60, warmup=0))
    assert result.phases is not None
    parts = result.phases.pre_ms + result.phases.inference_ms + result.phases.post_ms
    assert 0.5 * result.latency.p50_ms < parts < 2 * result.latency.p50_ms
    assert result.phases.inference_ms > 0


def test_throughput_at_batch_sizes(predictor: Predictor) -> None:
    result = bench_package(predictor, BenchOptions(rounds=5, warmup=1, batches=(2, 1, 4)))
    assert result.batch == 2
    assert [one.batch for one in result.throughput] == [2, 1, 4]
    for one in result.throughput:
        assert one.per_second == pytest.approx(1000 * one.batch / one.p50_ms)
        assert one.lower is not None
        assert one.upper is not None
        assert one.lower <= one.per_second <= one.upper


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
    monkeypatch.setattr(bench, "sample", lambda *given: sampled(HUNDRED))
    result = bench_package(predictor, BenchOptions(max_ms={90: budget}))
    assert result.verdict == verdict
    assert type(result.failure()) is (failure or type(None))
    assert words in result.explain()


def test_every_percentile_has_its_budget(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst of them is the verdict, and only what it rests on is said of a failure."""
    monkeypatch.setattr(bench, "sample", lambda *given: sampled(HUNDRED))
    result = bench_package(predictor, BenchOptions(max_ms={99: 200, 90: 96, 50: 10}))
    assert [(one.metric, one.verdict) for one in result.judged] == [
        ("latency_p50_ms", "fail"),
        ("latency_p90_ms", "pass"),
        ("latency_p99_ms", "undecided"),
    ]
    assert result.verdict == "fail"
    assert str(result.failure()).startswith("p50 50 ms, between")
    assert "p90" not in str(result.failure())
    assert len(result.explain().splitlines()) == 3
    assert "more rounds, for instance 3070" in result.explain()
    data = result.to_dict()
    assert (data["verdict"], data["max_p90_ms"]) == ("fail", 96)
    assert data["confidence"] == 0.95
    assert data["latency"]["histogram"]["slowest_ms"] >= data["latency"]["p99_ms"] * 0.99999


def noisy(seconds: float = 3.0) -> MachineState:
    quiet = Snapshot(None, None, None, (), {}, {}, None)
    return MachineState(quiet, quiet, seconds, 2, 0.45, 0.0, None, None, None, ("others used 45 % of its cores",))


@pytest.mark.parametrize(
    ("budget", "verdict"), [(288.0, "pass"), (287.0, "undecided"), (29.0, "undecided"), (27, "fail")]
)
def test_a_noisy_machine_decides_only_what_is_far_off(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, budget: float, verdict: str
) -> None:
    monkeypatch.setattr(bench, "sample", lambda *given: replace(sampled(HUNDRED), state=noisy()))
    result = bench_package(predictor, BenchOptions(max_ms={90: budget}))
    assert result.verdict == verdict
    assert "as the machine was noisy: others used 45 % of its cores" in result.explain()
    assert ("undecided; measure on a quieter machine" in result.explain()) is (verdict == "undecided")
    assert result.to_dict()["state"]["others"] == 0.45  # type: ignore[index]


def test_what_took_too_long_says_so(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "sample", lambda *given: sampled(HUNDRED[:20], cut=True))
    result = bench_package(predictor, BenchOptions(max_ms={90: 200}))
    assert "1 s were not enough: measure for longer, with --max-seconds" in result.explain()


def test_bursts_are_undecided(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of 33 timings in 300 is more than a tenth, and 29 of 300 would be less: one burst cannot say."""
    timings = [1_000_000] * 150 + [9_000_000] * 29 + [1_000_000] * 121
    monkeypatch.setattr(bench, "sample", lambda *given: sampled(timings))
    result = bench_package(predictor, BenchOptions(max_ms={90: 5}))
    assert (result.verdict, result.latency.p90_ms, result.latency.p90_upper_ms) == ("undecided", 1, 27)
    assert isinstance(result.failure(), Undecided)
    assert "at most 27 ms (3 times the slowest: they come in bursts)" in result.explain()
    assert "measure with more rounds, for instance 1200, or on a quieter machine" in result.explain()
    assert bench_package(predictor, BenchOptions(max_ms={90: 26.9})).verdict == "undecided"
    far = bench_package(predictor, BenchOptions(max_ms={90: 27}))
    assert (far.verdict, far.failure()) == ("pass", None)


def test_a_verdict_takes_time(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def watched(calls: Any, sampling: Sampling, *rest: Any) -> Any:
        asked.append(sampling)
        return sampled(HUNDRED)

    monkeypatch.setattr(bench, "sample", watched)
    bench_package(predictor, BenchOptions(max_ms={90: 5}))
    bench_package(predictor, BenchOptions())
    bench_package(predictor, BenchOptions(max_ms={99: 5}, min_s=7.0, max_s=8.0))
    bench_package(predictor, BenchOptions(rounds=40, max_ms={50: 5}))
    bench_package(predictor, BenchOptions(max_ms={90: 5}, max_s=0.5))
    assert [(one.rounds, one.pace, one.min_s, one.max_s) for one in asked] == [
        (300, PACE, 3.0, 60.0),
        (300, 0.0, 0.0, 60.0),
        (3070, PACE, 7.0, 8.0),
        (40, PACE, 0.0, 60.0),
        (300, PACE, 0.5, 0.5),
    ]


def test_a_budget_that_is_near_is_measured_for_longer() -> None:
    """p90 of these is 90 ms, between 84 and 96 ms; three times as far away no burst is taken to be."""
    for limit, far in ((289.0, True), (287.0, False), (29.0, False), (27.0, True)):
        asked = BenchOptions(max_ms={90: limit}).sampling()
        assert asked.settled is not None
        assert (asked.settled({"predict": HUNDRED}), asked.min_s, asked.near_s) == (far, 3.0, 10.0)
    both = BenchOptions(max_ms={90: 289.0, 50: 60.0}).sampling()
    assert both.settled is not None
    assert not both.settled({"predict": HUNDRED})
    assert BenchOptions(max_ms={90: 1.0}, rounds=300).sampling().settled is None
    assert BenchOptions(max_ms={90: 1.0}, min_s=1.0).sampling().settled is None


def test_few_rounds_are_undecided(predictor: Predictor) -> None:
    result = bench_package(predictor, BenchOptions(rounds=5, max_ms={90: 10_000}))
    assert result.verdict == "undecided"
    assert "and an unknown limit" in result.explain()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BenchOptions(batches=(0,)), "batch is 0; must be 1 or more"),
        (BenchOptions(batches=(2_000_000,)), "batch is 2000000; must be 1 or more, and at most 65536"),
        (BenchOptions(rounds=10**12), "rounds is 1000000000000; must be 1 or more, and at most 1000000000"),
        (BenchOptions(max_ms={90: float("inf")}), "the p90 budget is inf ms; must be over 0 and finite"),
        (BenchOptions(max_ms={90: 0}), "the p90 budget is 0 ms; must be over 0"),
        (BenchOptions(max_ms={90: float("nan")}), "the p90 budget is nan ms"),
        (BenchOptions(rounds=0), "rounds is 0"),
        (BenchOptions(max_ms={95: 1.0}), "there is a budget for p95; must be for one of"),
        (BenchOptions(min_s=9.0, max_s=3.0), "the seconds to measure are 9 to 3"),
    ],
)
def test_options_out_of_range(predictor: Predictor, options: BenchOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bench_package(predictor, options)
