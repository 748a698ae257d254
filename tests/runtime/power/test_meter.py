"""Joules per inference of a machine whose power is known."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from dlx_deploy.runtime.power.channels import PowerRail, SensorError
from dlx_deploy.runtime.power.meter import Energy, Meter, Window, energy_of
from dlx_deploy.runtime.power.sensors import Sensors

SENSORS = Sensors((PowerRail("VDD_IN", lambda: 0.0),), ("cpu",))


def window(watts: list[float], per_second: float, seconds: float = 4.0, every_s: float = 0.05) -> list[Window]:
    """Samples of a machine that takes ``watts`` in turn, and does so many inferences in a second."""
    joules, samples = 0.0, []
    for i, power in zip(range(int(seconds / every_s) + 1), itertools.cycle(watts), strict=False):
        samples.append(Window(i * every_s, joules, int(i * every_s * per_second)))
        joules += power * every_s
    return samples


def measured(idle: list[Window], busy: list[Window]) -> Energy:
    reading = energy_of(idle, busy, SENSORS, 0.95)
    assert reading.energy is not None, reading.why
    return reading.energy


def test_idle_power_is_subtracted() -> None:
    energy = measured(window([3.0], 0), window([8.0], 100))
    assert energy.per_inference_mj == pytest.approx(50.0)  # 5 W of work, 100 a second
    assert (energy.power_w, energy.idle_w) == (pytest.approx(8.0), pytest.approx(3.0))
    assert (energy.blocks, energy.inferences, energy.seconds) == (20, 400, pytest.approx(4.0))
    assert energy.lower_mj == pytest.approx(energy.upper_mj)
    assert "50 mJ an inference beyond idle" in energy.describe()


def test_pauses_between_inferences_cost_nothing() -> None:
    """The same work at half the pace, in a window that is half idle, takes the same energy."""
    fast, slow = measured(window([3.0], 0), window([8.0], 100)), measured(window([3.0], 0), window([8.0, 3.0], 50))
    assert slow.per_inference_mj == pytest.approx(fast.per_inference_mj, rel=0.02)


def test_bounds_hold_as_often_as_they_say() -> None:
    """Noise in both windows: the upper bound is under the truth no oftener than it may be."""
    rng, missed, runs = np.random.default_rng(0), 0, 200
    for _ in range(runs):
        idle = window(list(3 + rng.normal(0, 1, 200)), 0, 2.0)
        busy = window(list(8 + rng.normal(0, 3, 200)), 100, 3.0)
        missed += measured(idle, busy).upper_mj < 50.0
    assert missed / runs < 0.09  # 0.05, and 2.5 standard errors


def test_noise_widens_what_is_said() -> None:
    quiet = measured(window([3.0], 0), window([8.0, 8.0, 8.4, 7.6, 8.2], 100))
    noisy = measured(window([3.0, 1.0, 5.0], 0), window([8.0, 14.0, 2.0], 100))
    assert noisy.upper_mj - noisy.lower_mj > 2 * (quiet.upper_mj - quiet.lower_mj)
    assert noisy.spread_mj > quiet.spread_mj > 0


@pytest.mark.parametrize(
    ("busy", "seen"),
    [
        (window([8.0], 100, 0.65), "0.65 s with 65 inferences"),
        (window([8.0], 1, 4.0), "4 s with 4 inferences"),
        ([], "0 s with 0 inferences"),
        (window([8.0], 9, 0.0), "0 s with 0 inferences"),
    ],
)
def test_too_little_says_what_is_needed(busy: list[Window], seen: str) -> None:
    reading = energy_of(window([3.0], 0), busy, SENSORS, 0.95)
    assert reading.energy is None
    assert reading.describe() == (
        f"energy not measured: {seen} are too short (rule: 5 blocks of 0.2 s or longer, each of 2 inferences or more)"
    )


def test_the_thread_reads_while_work_is_done() -> None:
    """A rail whose power follows what is done."""
    working = [False]
    meter = Meter(Sensors((PowerRail("VDD_IN", lambda: 9.0 if working[0] else 4.0),), ("cpu",)), "cpu")
    meter.rest(1.1)
    with meter.running():
        working[0] = True
        until = time.perf_counter() + 1.2
        while time.perf_counter() < until:
            time.sleep(0.01)
            meter.count(2)
    energy = meter.result(0.95).energy
    assert energy is not None
    assert energy.idle_w == pytest.approx(4.0, abs=0.2)
    assert energy.per_inference_mj * energy.inferences / energy.seconds == pytest.approx(5000, rel=0.2)


def test_a_sensor_that_fails_under_way_says_why() -> None:
    def broken() -> float:
        raise SensorError("curr1_input: Remote I/O error")

    meter = Meter(Sensors((PowerRail("VDD_IN", broken),), ("cpu",)), "cpu")
    meter.rest(0.0)
    with meter.running():
        meter.count(1)
    assert meter.result(0.95).why == "curr1_input: Remote I/O error"


def test_without_the_processor_s_sensor_nothing_is_measured() -> None:
    """A GPU's counter says nothing of what a CPU does: its energy would be none, and meet any budget."""
    meter = Meter(SENSORS, "gpu")
    with meter.running():
        meter.count(1)
    assert meter.result(0.95).why == "no sensor of the GPU is here (INA3221 or NVML)"


def test_less_than_idle_is_no_energy() -> None:
    reading = energy_of(window([50.0], 0), window([40.0], 100), SENSORS, 0.95)
    assert reading.energy is None
    assert reading.why.startswith("the machine took 40 W while it ran and 50 W before: something else was at work")
