"""Trees like ``/sys`` of boards that have sensors of power, written by tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["hwmon", "iio", "rapl", "write"]


def write(root: Path, files: Mapping[str, object]) -> Path:
    """``files`` below ``root``, each with a line end as the kernel writes it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def hwmon(root: Path, rails: Mapping[str, tuple[int, int]], chip: str = "1-0040") -> Path:
    """An INA3221 as JetPack 5 and later show it: label → millivolts and milliamperes, numbered from 1."""
    folder = f"bus/i2c/devices/{chip}"
    files: dict[str, object] = {f"{folder}/name": "ina3221"}
    for n, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files[f"{folder}/hwmon/hwmon1/in{n}_label"] = label
        files[f"{folder}/hwmon/hwmon1/in{n}_input"] = millivolts
        files[f"{folder}/hwmon/hwmon1/curr{n}_input"] = milliamperes
    files[f"{folder}/hwmon/hwmon1/in7_label"] = "sum of shunt voltages"
    files[f"{folder}/hwmon/hwmon1/in7_input"] = 12
    return write(root, files)


def iio(root: Path, rails: Mapping[str, int]) -> Path:
    """An INA3221 as JetPack 4 shows it: label → milliwatts, numbered from 0."""
    folder = "bus/i2c/devices/6-0040"
    files: dict[str, object] = {f"{folder}/name": "ina3221x"}
    for n, (label, milliwatts) in enumerate(rails.items()):
        files[f"{folder}/iio:device0/rail_name_{n}"] = label
        files[f"{folder}/iio:device0/in_power{n}_input"] = milliwatts
    return write(root, files)


def rapl(root: Path, zones: Sequence[tuple[str, str, int]], most: int = 65_532_610_987) -> Path:
    """Zones of powercap: folder, name, microjoules."""
    files: dict[str, object] = {}
    for zone, name, microjoules in zones:
        where = f"class/powercap/{zone}"
        files |= {f"{where}/name": name, f"{where}/energy_uj": microjoules, f"{where}/max_energy_range_uj": most}
    return write(root, files)
