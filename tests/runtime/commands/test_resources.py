"""Budgets of throughput, memory, size and energy on the machine that runs a package."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dlx_deploy.runtime.backends.table import BackendOptions
from dlx_deploy.runtime.commands import resources
from dlx_deploy.runtime.commands.bench import BenchOptions, bench_package
from dlx_deploy.runtime.commands.resources import Resources, judge_resources, measure_resources, processor_of
from dlx_deploy.runtime.device_budgets import DeviceBudgets
from dlx_deploy.runtime.errors import BudgetMissed, InputError, Undecided
from dlx_deploy.runtime.package.contents import open_package
from dlx_deploy.runtime.power.meter import Energy, Reading
from dlx_deploy.runtime.power.sensors import Sensors, find_sensors
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.timing import sustained
from dlx_deploy.runtime.timing.sustained import Sustained, peak_memory_mib, throughput_of
from tests.runtime.power.trees import hwmon

RATE = Sustained(batch=8, per_second=1000.0, lower=900.0, upper=1100.0, blocks=20, calls=400, seconds=3.2)
ENERGY = Energy(
    per_inference_mj=5.0, lower_mj=4.0, upper_mj=6.0, spread_mj=1.0, blocks=20, inferences=3200, seconds=3.2,
    power_w=9.0, idle_w=4.0, sensors=("VDD_IN",),
)  # fmt: skip
SEEN = Resources(RATE, Reading(ENERGY), peak_memory_mib=100.0, package_bytes=2 * 2**20)


@pytest.mark.parametrize(
    ("budget", "limit", "verdict", "bound", "words"),
    [
        ("min_throughput", 900.0, "pass", 900.0, "throughput at batch 8 is 1000 samples/s, 900 to 1100 at 95 % "),
        ("min_throughput", 901.0, "undecided", 900.0, "budget 901 samples/s: undecided; measure on a quieter machine"),
        ("min_throughput", 1101.0, "fail", 1100.0, "budget 1101 samples/s: missed"),
        ("max_energy_mj", 6.0, "pass", 6.0, "energy of an inference beyond idle, by VDD_IN, is 5 mJ, 4 to 6 at 95 %"),
        ("max_energy_mj", 5.9, "undecided", 6.0, "budget 5.9 mJ: undecided"),
        ("max_energy_mj", 3.9, "fail", 4.0, "budget 3.9 mJ: missed"),
        ("max_memory_mib", 100.0, "pass", 100.0, "a process that runs it had at most 100 MiB; budget 100 MiB: met"),
        ("max_memory_mib", 99.0, "fail", 100.0, "budget 99 MiB: missed"),
        ("max_size_mib", 2.0, "pass", 2.0, "the package has 2 MiB; budget 2 MiB: met"),
        ("max_size_mib", 1.9, "fail", 2.0, "budget 1.9 MiB: missed"),
    ],
)
def test_each_budget_is_judged_by_its_bound(budget: str, limit: float, verdict: str, bound: float, words: str) -> None:
    (judged,) = judge_resources(SEEN, DeviceBudgets(**{budget: limit}))  # type: ignore[arg-type]
    assert (judged.verdict, judged.bound, judged.limit) == (verdict, bound, limit)
    assert words in judged.text


def test_what_is_not_measured_decides_nothing() -> None:
    seen = Resources(None, Reading(why="no sensor of the CPU is here"), None, None)
    judged = judge_resources(seen, DeviceBudgets(max_memory_mib=1, max_size_mib=1, max_energy_mj=1))
    assert [(one.verdict, one.value) for one in judged] == [("undecided", None)] * 3
    assert "energy of an inference is not measured: no sensor of the CPU is here; budget 1 mJ" in judged[0].text


def test_throughput_is_of_the_median_block() -> None:
    """A stall in one block of twenty moves no median, and the bounds hold what blocks do."""
    steady = throughput_of([i * 10_000_000 for i in range(401)], 4)
    assert [steady.per_second, steady.lower, steady.upper] == pytest.approx([400, 400, 400])
    stalled = throughput_of([i * 10_000_000 + (i > 200) * 10**9 for i in range(401)], 4)
    assert (stalled.blocks, stalled.per_second) == (20, pytest.approx(400))
    times = [0]
    for i in range(400):  # faster and slower by turns, so that blocks are in no order
        times.append(times[-1] + 10_000_000 + (i // 20 * 7 % 20) * 1_000_000)
    mixed = throughput_of(times, 1)
    assert mixed.lower is not None
    assert mixed.upper is not None
    assert 1000 / 25 < mixed.lower < mixed.per_second < mixed.upper < 1000 / 14
    few = throughput_of([0, 10_000_000], 1)
    assert (few.lower, few.upper, few.calls) == (None, None, 1)


def test_bench_measures_what_budgets_ask_for(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sustained, "WINDOW_S", 0.05)
    monkeypatch.setattr(resources, "find_sensors", Sensors)
    budgets = DeviceBudgets(min_throughput=1e12, throughput_batch=3, max_memory_mib=1e6)
    result = bench_package(predictor, BenchOptions(rounds=30, device=budgets))
    assert [(one.metric, one.verdict) for one in result.judged] == [("throughput", "fail"), ("peak_memory_mib", "pass")]
    assert isinstance(result.failure(), BudgetMissed)
    seen = json.loads(json.dumps(result.to_dict()))["resources"]
    assert seen["sustained"]["batch"] == 3
    assert (seen["energy"], seen["energy_unknown"]) == (None, "no sensor of the CPU is here (INA3221 or RAPL)")
    unknown = bench_package(predictor, BenchOptions(rounds=30, device=DeviceBudgets(max_energy_mj=1)))
    assert isinstance(unknown.failure(), Undecided)


def test_bench_of_a_board_with_a_sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensor alone is reason enough: its energy is said, whether a budget is set or not."""
    monkeypatch.setattr(sustained, "WINDOW_S", 1.2)
    sensors = find_sensors(hwmon(tmp_path, {"VDD_IN": (5000, 1000)}), Path("/nonexistent"))
    busy: list[int] = []

    def call() -> None:
        busy.append(2)
        time.sleep(0.005)

    seen = measure_resources(call, DeviceBudgets(throughput_batch=2), "tensorrt", sensors=sensors)
    assert seen.energy.energy is not None, seen.energy.why
    assert seen.energy.energy.idle_w == pytest.approx(5.0)
    assert seen.energy.energy.per_inference_mj == pytest.approx(0.0, abs=1e-6)
    assert seen.sustained is not None
    assert (seen.sustained.batch, seen.sustained.calls) == (2, len(busy) - 1)


@pytest.mark.parametrize(
    ("budgets", "words"),
    [
        (DeviceBudgets(max_energy_mj=-1), "the budget max_energy_mj is -1; must be over 0 and finite"),
        (DeviceBudgets(min_throughput=float("nan")), "the budget min_throughput is nan; must be over 0 and finite"),
        (DeviceBudgets(min_throughput=1, throughput_batch=10**9), "batch is 1000000000; must be 1 or more"),
    ],
)
def test_budgets_out_of_range(predictor: Predictor, budgets: DeviceBudgets, words: str) -> None:
    with pytest.raises(InputError, match=words):
        bench_package(predictor, BenchOptions(device=budgets))


def test_whose_energy_an_inference_is() -> None:
    names = ["tensorrt", "onnxruntime-cuda", "onnxruntime-cpu"]
    assert [processor_of(name) for name in names] == ["gpu", "gpu", "cpu"]


def test_peak_memory_is_what_linux_says(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t  204800 kB\nVmRSS:\t 1 kB\n")
    assert peak_memory_mib(str(status)) == 200.0
    assert peak_memory_mib(str(tmp_path / "none")) is None


def test_memory_is_that_of_a_process_that_does_nothing_else(dlx: Path) -> None:
    """A test set that ``verify`` holds in this process is not the package's."""
    predictor = Predictor(open_package(dlx), BackendOptions(threads=1), lambda text: None)
    seen = bench_package(predictor, BenchOptions(rounds=1, warmup=0, device=DeviceBudgets(max_memory_mib=1e5)))
    assert seen.resources is not None
    assert seen.cold_start is not None
    assert seen.resources.peak_memory_mib == seen.cold_start.peak_mib
    assert [one.metric for one in seen.judged] == ["peak_memory_mib"]
