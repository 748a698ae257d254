"""What a machine did while something was timed, from files that a test writes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from dlx_deploy.runtime.timing import state
from dlx_deploy.runtime.timing.sampling import Sampling, sample
from dlx_deploy.runtime.timing.state import MachineState, Watch

QUIET = (0, 0)


class Machine:
    """Two usable cores of four, each idle at first; ``passes`` lets time pass in which they do something."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.now, self.own = root, 0.0, 0.0
        self.columns = {core: [0] * 10 for core in range(4)}
        monkeypatch.setattr(state, "_usable_cores", lambda: [1, 2])
        monkeypatch.setattr(state, "TICKS", 100.0)
        monkeypatch.setattr(state.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(state.time, "process_time", lambda: self.own)
        self.passes(0.0)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def passes(self, seconds: float, own: float = 0.0, others: float = 0.0, stolen: float = 0.0) -> None:
        """Of what is computed, all on core 1 and 2; the other cores are busy all the time."""
        self.now, self.own = self.now + seconds, self.own + own
        self.columns[1][0] += round(100 * own)
        self.columns[2][2] += round(100 * others)
        self.columns[2][7] += round(100 * stolen)
        self.columns[0][0] += round(100 * seconds)
        rows = [f"cpu{core} {' '.join(map(str, columns))}" for core, columns in self.columns.items()]
        self.write("proc/stat", "\n".join(["cpu  1 2 3", *rows, "intr 5"]))

    def watch(self) -> Watch:
        return Watch(self.root / "proc", self.root / "sys")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def met(machine: Machine, **passed: float) -> MachineState:
    watch = machine.watch()
    watch.begin()
    machine.passes(**passed)
    return watch.end()


@pytest.mark.parametrize(
    ("passed", "others", "stolen", "noise"),
    [
        ({"seconds": 10.0, "own": 9.0}, 0.0, 0.0, []),
        ({"seconds": 10.0, "own": 9.0, "others": 4.0}, 0.2, 0.0, []),
        (
            {"seconds": 10.0, "own": 9.0, "others": 9.0},
            0.45,
            0.0,
            ["other processes used 45 % of its cores (over 20 %)"],
        ),
        ({"seconds": 10.0, "stolen": 0.4}, 0.0, 0.02, []),
        ({"seconds": 10.0, "stolen": 1.0}, 0.0, 0.05, ["5.0 % of its cores' time was stolen (over 2 %)"]),
    ],
)
def test_what_others_take_is_noise(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    passed: dict[str, float],
    others: float,
    stolen: float,
    noise: list[str],
) -> None:
    seen = met(Machine(tmp_path, monkeypatch), **passed)
    assert (seen.others, seen.stolen) == (pytest.approx(others), pytest.approx(stolen))
    assert list(seen.noise) == noise
    assert f"others used {100 * others:.0f} % of its cores" in seen.describe()


def test_a_moment_says_nothing(machine: Machine) -> None:
    seen = met(machine, seconds=0.4, others=0.4)
    assert (seen.others, seen.noise, seen.describe()) == (None, (), "")


@pytest.mark.parametrize("stat", ["", "cpu1 1 2 3\ncpu2 1 2 3", "cpu1 1 2 3 4 5 6 7 8 9 x\ncpu2 1 2 3 4 5 6 7 8 9 0"])
def test_what_cannot_be_read_is_not_made_up(machine: Machine, stat: str) -> None:
    machine.write("proc/stat", stat)
    machine.write("sys/class/thermal/thermal_zone0/temp", "hot")
    watch = machine.watch()
    watch.begin()
    machine.now += 10
    seen = watch.end()
    assert (seen.others, seen.stolen, seen.hottest_c, seen.slowest_mhz, seen.before.throttles) == (None,) * 5
    assert (seen.before.clocks_mhz, seen.before.gpu_clocks_mhz, seen.noise) == ((), {}, ())


def test_clocks_heat_and_throttling(machine: Machine) -> None:
    cpu = "sys/devices/system/cpu/cpu"
    for core, khz in ((0, 100), (1, 1_500_000), (2, 1_400_000)):
        machine.write(f"{cpu}{core}/cpufreq/scaling_cur_freq", f"{khz}\n")
        machine.write(f"{cpu}{core}/thermal_throttle/core_throttle_count", "3\n")
    machine.write(f"{cpu}1/cpufreq/scaling_governor", "schedutil\n")
    machine.write("proc/loadavg", "1.50 1.00 0.50 2/300 99\n")
    machine.write("sys/class/thermal/thermal_zone0/type", "CPU-therm\n")
    machine.write("sys/class/thermal/thermal_zone0/temp", "41500\n")
    machine.write("sys/class/hwmon/hwmon2/name", "k10temp\n")
    machine.write("sys/class/hwmon/hwmon2/temp1_input", "39000\n")
    machine.write("sys/class/devfreq/17000000.gpu/cur_freq", "612000000\n")
    machine.write("sys/class/devfreq/other/cur_freq", "1\n")
    watch = machine.watch()
    watch.begin()
    machine.now += 0.1
    assert not watch.look()
    machine.now += 0.2
    machine.write("sys/class/thermal/thermal_zone0/temp", "72000\n")
    machine.write(f"{cpu}2/cpufreq/scaling_cur_freq", "800000\n")
    assert watch.look()
    assert not watch.look()
    machine.now += 1.0
    machine.write("sys/class/thermal/thermal_zone0/temp", "50000\n")
    machine.write(f"{cpu}2/thermal_throttle/core_throttle_count", "5\n")
    seen = watch.end()
    assert (seen.before.governor, seen.before.load_1m, seen.before.clocks_mhz) == ("schedutil", 1.5, (1500.0, 1400.0))
    assert seen.before.temperatures_c == {"thermal_zone0 CPU-therm": 41.5, "hwmon2 k10temp temp1": 39.0}
    assert seen.before.gpu_clocks_mhz == {"17000000.gpu": 612.0}
    assert (seen.looks, seen.slowest_mhz, seen.fastest_mhz, seen.hottest_c) == (3, 800.0, 1500.0, 72.0)
    assert (seen.before.throttles, seen.after.throttles, seen.noise) == (6, 8, ("its cores were throttled 2 times",))
    assert "clocked 800 to 1500 MHz, at most 72 °C" in seen.describe()
    assert json.loads(json.dumps(asdict(seen)))["after"]["throttles"] == 8


def test_a_measurement_is_watched_between_its_rounds(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for each call: the machine is looked at after seven rounds, and what then runs first is not timed."""
    calls = []

    def call() -> None:
        calls.append(machine.now)
        machine.passes(1.0, own=0.5, others=1.0)

    monkeypatch.setattr("dlx_deploy.runtime.timing.sampling.time.perf_counter_ns", lambda: int(machine.now * 1e9))
    seen = sample({"a": call}, Sampling(12, warmup=3, pace=0.0), watch=machine.watch())
    assert len(calls) == 12 + 3 + 1
    assert seen.timings == {"a": [1_000_000_000] * 12}
    assert seen.state is not None
    assert (seen.state.seconds, seen.state.looks) == (13.0, 3)
    assert seen.noise == ("other processes used 50 % of its cores (over 20 %)",)
