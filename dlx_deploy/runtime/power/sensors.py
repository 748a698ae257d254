"""Which sensors of energy this machine has, and why those that it has cannot be read.

All is read below ``/sys``, but for NVIDIA's library, which is asked through its Python module where that is installed.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Callable, List, NamedTuple, Sequence, Tuple

from ..records import record
from ..untyped import Foreign
from .channels import Channel, EnergyCounter, PowerRail, SensorError

__all__ = ["SYS", "Sensors", "find_sensors"]

SYS = Path("/sys")
TOTALS = ("VDD_IN", "POM_5V_IN")  # the rail that feeds the whole module, where there is one
UNUSED = "NC"
RAILS = range(4)  # of an INA3221: three, numbered from 1 by hwmon and from 0 by JetPack 4
NVML_DRIVER = Path("/proc/driver/nvidia/version")
MODULE = "pynvml"


@record
class Sensors:
    """What can be read, ``of`` which processors (``cpu``, ``gpu``), and ``reasons`` why something cannot be."""

    channels: Tuple[Channel, ...] = ()
    of: Tuple[str, ...] = ()
    reasons: Tuple[str, ...] = ()

    @property
    def names(self) -> Tuple[str, ...]:
        """How the hardware calls them."""
        return tuple(channel.name for channel in self.channels)

    def missing(self, processor: str) -> str:
        """Why the energy of ``processor`` is unknown; empty where it is measured."""
        if processor in self.of:
            return ""
        what = "INA3221 or RAPL" if processor == "cpu" else "INA3221 or NVML"
        return "; ".join(self.reasons) or f"no sensor of the {processor.upper()} is here ({what})"


def find_sensors(sys: Path = SYS, driver: Path = NVML_DRIVER) -> Sensors:
    """The sensors of this machine. A board whose own rails are measured needs no other: they feed CPU and GPU.

    ``driver``: the file that is there where NVIDIA's driver is.
    """
    try:
        rails = _rails(sys)
    except SensorError as e:
        return Sensors(reasons=(str(e),))
    if rails:
        return Sensors(tuple(rails), ("cpu", "gpu"))
    channels: List[Channel] = []
    of, reasons = [], []
    ways: Sequence[Tuple[str, Callable[[], Sequence[Channel]]]] = (
        ("cpu", lambda: _rapl(sys)),
        ("gpu", lambda: _nvml(driver)),
    )
    for processor, found in ways:
        try:
            some = found()
        except SensorError as e:
            reasons.append(str(e))
            continue
        channels += some
        of += [processor] * bool(some)
    return Sensors(tuple(channels), tuple(of), tuple(reasons))


class _Rail(NamedTuple):
    name: str
    watts: Callable[[], float]


def _rails(sys: Path) -> Sequence[PowerRail]:
    """The rails of a Jetson's INA3221: the one of the whole module, or else all of them, whose sum it is."""
    rails: List[_Rail] = []
    for chip in sorted(sys.glob("bus/i2c/devices/*/name")):
        if _text(chip).startswith("ina3221"):
            rails += _hwmon_rails(chip.parent) + _iio_rails(chip.parent)
    used = [rail for rail in rails if rail.name in TOTALS] or rails
    for rail in used:
        rail.watts()  # without one that cannot be read the sum would be too small
    return [PowerRail(rail.name, rail.watts) for rail in used]


def _hwmon_rails(chip: Path) -> List[_Rail]:
    """Those of JetPack 5 and later."""
    rails = []
    for n in RAILS:
        for label in sorted(chip.glob(f"hwmon/hwmon*/in{n}_label")):
            power = _product(label.with_name(f"in{n}_input"), label.with_name(f"curr{n}_input"))
            rails.append(_Rail(_text(label), power))
    return [rail for rail in rails if UNUSED not in rail.name]


def _iio_rails(chip: Path) -> List[_Rail]:
    """Those of JetPack 4."""
    rails = []
    for n in RAILS:
        for label in sorted(chip.glob(f"iio:device*/rail_name_{n}")):
            rails.append(_Rail(_text(label), _scaled(label.with_name(f"in_power{n}_input"), 1e-3)))
    return [rail for rail in rails if UNUSED not in rail.name]


def _product(millivolts: Path, milliamperes: Path) -> Callable[[], float]:
    return lambda: _number(millivolts) * _number(milliamperes) / 1e6


def _scaled(path: Path, unit: float) -> Callable[[], float]:
    return lambda: _number(path) * unit


def _rapl(sys: Path) -> Sequence[EnergyCounter]:
    """The counters of each CPU package and of the memory at it.

    Cores and uncore are part of their package, ``psys`` holds it, and ``intel-rapl-mmio`` is the same one again.
    """
    counters = []
    for zone in sorted(sys.glob("class/powercap/intel-rapl:*")):
        name = _text(zone / "name")
        if name.startswith("package") or name == "dram":
            most = _number(zone / "max_energy_range_uj")
            counters.append(EnergyCounter(f"RAPL {name}", _counted(zone / "energy_uj"), 1e-6, most))
            _number(zone / "energy_uj")
    return counters


def _counted(path: Path) -> Callable[[], int]:
    return lambda: _number(path)


def _nvml(driver: Path) -> Sequence[Channel]:
    """All GPUs: those that do nothing take what they took when all were idle, which is subtracted."""
    if not driver.exists():
        return ()
    try:
        nvml = importlib.import_module(MODULE)
    except ImportError:
        raise SensorError(f"{MODULE} is not installed; to read the GPU's sensor: pip install nvidia-ml-py") from None
    try:
        nvml.nvmlInit()
        return [_gpu(nvml, i) for i in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as e:
        raise SensorError(f"NVML: {e}") from e


def _gpu(nvml: Foreign, index: int) -> Channel:
    """Its counter of energy (from Volta on), or its power."""
    handle, name = nvml.nvmlDeviceGetHandleByIndex(index), f"NVML GPU {index}"

    def ask(function: Callable[[Foreign], int]) -> int:
        try:
            return int(function(handle))
        except nvml.NVMLError as e:
            raise SensorError(f"{name}: {e}") from e

    try:
        ask(nvml.nvmlDeviceGetTotalEnergyConsumption)
    except SensorError:
        ask(nvml.nvmlDeviceGetPowerUsage)
        return PowerRail(name, lambda: ask(nvml.nvmlDeviceGetPowerUsage) / 1e3)
    return EnergyCounter(name, lambda: ask(nvml.nvmlDeviceGetTotalEnergyConsumption), 1e-3)


def _number(path: Path) -> int:
    text = _text(path)
    try:
        return int(text)
    except ValueError:
        raise SensorError(f"{path} says {text[:40]!r}, which is no whole number") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as f:
            return f.read(256).decode("utf-8", "replace").strip("\0\n ")
    except PermissionError:
        remedy = f"as root, or once: sudo chmod a+r {path}"
        raise SensorError(f"{path} may be read by root alone; run {remedy}") from None
    except OSError as e:
        raise SensorError(f"{path}: {os.strerror(e.errno) if e.errno else e}") from None
