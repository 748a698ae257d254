"""Which sensors are found in trees like ``/sys``, and what is said of those that cannot be read."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dlx_deploy.runtime.power.channels import EnergyCounter, PowerRail, SensorError
from dlx_deploy.runtime.power.sensors import Sensors, find_sensors
from tests.runtime.power.trees import hwmon, iio, rapl, write

NO_DRIVER = Path("/nonexistent")


def joules(sensors: Sensors, now_s: float) -> list[float]:
    return [channel.joules(now_s) for channel in sensors.channels]


def test_the_rail_of_the_whole_module_is_all_that_counts(tmp_path: Path) -> None:
    hwmon(tmp_path, {"VDD_IN": (5000, 1200), "VDD_CPU_GPU_CV": (5000, 400), "VDD_SOC": (5000, 200)})
    sensors = find_sensors(tmp_path, NO_DRIVER)
    assert (sensors.names, sensors.of, sensors.missing("gpu")) == (("VDD_IN",), ("cpu", "gpu"), "")
    joules(sensors, 1.0)
    assert joules(sensors, 3.0) == [pytest.approx(12.0)]  # 6 W for 2 s


def test_rails_without_a_total_are_added_over_both_chips(tmp_path: Path) -> None:
    hwmon(tmp_path, {"VDD_GPU_SOC": (20000, 500), "VDD_CPU_CV": (20000, 100), "VIN_SYS_5V0": (5000, 1000)})
    hwmon(tmp_path, {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (5000, 200)}, chip="1-0041")
    sensors = find_sensors(tmp_path, NO_DRIVER)
    assert sensors.names == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")
    joules(sensors, 0.0)
    assert sum(joules(sensors, 1.0)) == pytest.approx(10 + 2 + 5 + 1)


def test_jetpack_4_says_power_itself(tmp_path: Path) -> None:
    iio(tmp_path, {"POM_5V_IN": 2500, "POM_5V_GPU": 300, "POM_5V_CPU": 700})
    sensors = find_sensors(tmp_path, NO_DRIVER)
    joules(sensors, 0.0)
    assert (sensors.names, joules(sensors, 2.0)) == (("POM_5V_IN",), [pytest.approx(5.0)])


def test_power_that_changes_is_integrated_by_trapezoids() -> None:
    watts = iter([2.0, 4.0, 0.0])
    rail = PowerRail("VDD_IN", lambda: next(watts))
    assert [rail.joules(at) for at in (10.0, 12.0, 13.0)] == [0.0, 6.0, 8.0]


def test_a_sum_without_one_of_its_rails_is_no_sum(tmp_path: Path) -> None:
    hwmon(tmp_path, {"VDD_GPU_SOC": (20000, 500), "VDD_CPU_CV": (20000, 100)})
    (tmp_path / "bus/i2c/devices/1-0040/hwmon/hwmon1/curr2_input").unlink()
    sensors = find_sensors(tmp_path, NO_DRIVER)
    assert sensors.channels == ()
    assert "curr2_input: No such file or directory" in sensors.missing("gpu")


@pytest.mark.parametrize("text", ["", "12.5", "nan", "n/a"])
def test_what_is_no_number_is_said(tmp_path: Path, text: str) -> None:
    hwmon(tmp_path, {"VDD_IN": (5000, 1)})
    write(tmp_path, {"bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input": text})
    assert f"curr1_input says {text!r}, which is no whole number" in find_sensors(tmp_path, NO_DRIVER).missing("cpu")


def test_packages_and_memory_are_counted_once(tmp_path: Path) -> None:
    zones = [
        ("intel-rapl:0", "package-0", 10),
        ("intel-rapl:0:0", "core", 20),
        ("intel-rapl:0:1", "dram", 30),
        ("intel-rapl:1", "psys", 40),
        ("intel-rapl-mmio:0", "package-0", 10),
    ]
    sensors = find_sensors(rapl(tmp_path, zones), NO_DRIVER)
    assert (sensors.names, sensors.of) == (("RAPL package-0", "RAPL dram"), ("cpu",))
    assert sensors.missing("gpu") == "no sensor of the GPU is here (INA3221 or NVML)"


def test_a_counter_that_wraps_around_goes_on(tmp_path: Path) -> None:
    sensors = find_sensors(rapl(tmp_path, [("intel-rapl:0", "package-0", 999_000)], most=999_999), NO_DRIVER)
    joules(sensors, 0.0)
    write(tmp_path, {"class/powercap/intel-rapl:0/energy_uj": 500})
    assert joules(sensors, 1.0) == [pytest.approx(0.0015)]
    write(tmp_path, {"class/powercap/intel-rapl:0/energy_uj": 2500})
    assert joules(sensors, 2.0) == [pytest.approx(0.0035)]


def test_a_counter_that_never_wraps_and_goes_back_is_no_counter() -> None:
    counts = iter([5, 3])
    counter = EnergyCounter("NVML GPU 0", lambda: next(counts), 1e-3)
    counter.joules(0.0)
    with pytest.raises(SensorError, match="NVML GPU 0 went back from 5 to 3"):
        counter.joules(1.0)


def test_what_root_alone_may_read_is_said_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rapl(tmp_path, [("intel-rapl:0", "package-0", 1)])
    path = tmp_path / "class/powercap/intel-rapl:0/energy_uj"
    opened = Path.open

    def refused(self: Path, *given: str) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return opened(self, *given)

    monkeypatch.setattr(Path, "open", refused)  # tests may run as root, who may read everything
    assert find_sensors(tmp_path, NO_DRIVER).missing("cpu") == (
        f"{path} may be read by root alone; run as root, or once: sudo chmod a+r {path}"
    )


def test_a_machine_without_any_says_so(tmp_path: Path) -> None:
    sensors = find_sensors(tmp_path, NO_DRIVER)
    assert (sensors.channels, sensors.reasons) == ((), ())
    assert sensors.missing("cpu") == "no sensor of the CPU is here (INA3221 or RAPL)"


class NvmlError(Exception):
    pass


def nvml(energy: bool = True) -> SimpleNamespace:
    """A library that knows one GPU, by its counter or only by its power."""

    def total(handle: str) -> int:
        if not energy:
            raise NvmlError("Not Supported")
        return 7_000

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda i: f"GPU {i}",
        nvmlDeviceGetTotalEnergyConsumption=total,
        nvmlDeviceGetPowerUsage=lambda handle: 40_000,
    )


def test_a_gpu_counts_its_energy_or_says_its_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = write(tmp_path, {"version": "NVRM"}) / "version"
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    (counter,) = find_sensors(tmp_path, driver).channels
    assert isinstance(counter, EnergyCounter)
    monkeypatch.setitem(sys.modules, "pynvml", nvml(energy=False))
    sensors = find_sensors(tmp_path, driver)
    joules(sensors, 0.0)
    assert (sensors.names, sensors.of, joules(sensors, 0.5)) == (("NVML GPU 0",), ("gpu",), [pytest.approx(20.0)])


def test_a_driver_without_its_module_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = write(tmp_path, {"version": "NVRM"}) / "version"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_sensors(tmp_path, driver).missing("gpu") == (
        "pynvml is not installed; to read the GPU's sensor: pip install nvidia-ml-py"
    )
