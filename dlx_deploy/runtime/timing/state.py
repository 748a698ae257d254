"""What the machine did while something was timed: who else used its cores, how it was clocked, how hot it was.

All of it is read from files of ``/proc`` and ``/sys``, between timed runs; no command is run.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ..machine import power_mode
from ..records import record

__all__ = ["MachineState", "Snapshot", "Watch"]

PROC, SYS = Path("/proc"), Path("/sys")
LOOK_EVERY_S = 0.25
LEAST_S = 0.5  # of a shorter measurement /proc/stat, which counts hundredths of a second, says nothing
OTHERS = 0.2  # of the time of the cores that this process may use: with more taken by others, the machine is noisy …
STOLEN = 0.02  # … or with so much taken by the hypervisor
USER, NICE, SYSTEM, IRQ, SOFTIRQ, STEAL = 0, 1, 2, 5, 6, 7  # columns of /proc/stat
TICKS = float(os.sysconf("SC_CLK_TCK")) if hasattr(os, "sysconf") else 100.0


@record
class Snapshot:
    """A moment of the machine. ``None`` and empty: it does not say. Clocks are those of the usable cores and GPUs.

    ``throttles``: how often cores were slowed for their heat since the machine started.
    """

    load_1m: Optional[float]
    governor: Optional[str]
    power_mode: Optional[str]
    clocks_mhz: Tuple[float, ...]
    gpu_clocks_mhz: Mapping[str, float]
    temperatures_c: Mapping[str, float]
    throttles: Optional[int]


@record
class MachineState:
    """What a measurement of ``seconds`` met. Shares are of the time of the cores that this process may use.

    ``others``: used by other processes; ``stolen``: by the hypervisor's other guests. ``slowest_mhz`` and
    ``hottest_c``: of all looks in between. ``noise``: why timings of this machine cannot be relied on, if so.
    """

    before: Snapshot
    after: Snapshot
    seconds: float
    looks: int
    others: Optional[float]
    stolen: Optional[float]
    slowest_mhz: Optional[float]
    fastest_mhz: Optional[float]
    hottest_c: Optional[float]
    noise: Tuple[str, ...] = ()

    def describe(self) -> str:
        """What else was on, for people; empty where the machine does not say."""
        told = []
        if self.others is not None and self.stolen is not None:
            told.append(f"others used {100 * self.others:.0f} % of its cores, {100 * self.stolen:.1f} % were stolen")
        if self.slowest_mhz is not None:
            told.append(f"clocked {self.slowest_mhz:.0f} to {self.fastest_mhz:.0f} MHz")
        if self.hottest_c is not None:
            told.append(f"at most {self.hottest_c:.0f} °C")
        return ", ".join(told)


class Watch:
    """Looks at a machine from ``begin`` to ``end``; ``proc`` and ``sys`` say where its files are."""

    def __init__(self, proc: Path = PROC, sys: Path = SYS) -> None:
        self._proc, self._sys, self._cores = proc, sys, _usable_cores()
        self._seen: List[Snapshot] = []
        self._began_s, self._looked_s, self._own_s = 0.0, 0.0, 0.0
        self._busy_s: Optional[Tuple[float, float]] = None

    def begin(self) -> None:
        """From now on."""
        self._seen = [self._snapshot()]
        self._busy_s, self._own_s = self._cpu_seconds(), time.process_time()
        self._began_s = self._looked_s = time.monotonic()

    def look(self) -> bool:
        """Looks, if the last time is a while ago; whether it did, which takes a fraction of a millisecond."""
        now = time.monotonic()
        if now - self._looked_s < LOOK_EVERY_S:
            return False
        self._looked_s = now
        self._seen.append(self._snapshot())
        return True

    def end(self) -> MachineState:
        """What was seen since ``begin``."""
        seconds, busy_s, own_s = time.monotonic() - self._began_s, self._cpu_seconds(), time.process_time()
        self._seen.append(self._snapshot())
        before, after = self._seen[0], self._seen[-1]
        others = stolen = None
        if self._busy_s and busy_s and seconds >= LEAST_S:
            capacity = seconds * len(self._cores)
            others = max(busy_s[0] - self._busy_s[0] - (own_s - self._own_s), 0.0) / capacity
            stolen = max(busy_s[1] - self._busy_s[1], 0.0) / capacity
        clocks = [clock for one in self._seen for clock in one.clocks_mhz]
        return MachineState(
            before=before,
            after=after,
            seconds=seconds,
            looks=len(self._seen),
            others=others,
            stolen=stolen,
            slowest_mhz=min(clocks, default=None),
            fastest_mhz=max(clocks, default=None),
            hottest_c=max((heat for one in self._seen for heat in one.temperatures_c.values()), default=None),
            noise=tuple(_noise(others, stolen, (after.throttles or 0) - (before.throttles or 0))),
        )

    def _snapshot(self) -> Snapshot:
        cores = [self._sys / f"devices/system/cpu/cpu{core}" for core in self._cores]
        clocks = [_number(core / "cpufreq/scaling_cur_freq") for core in cores]
        throttles = [_number(path) for core in cores for path in sorted(core.glob("thermal_throttle/*_throttle_count"))]
        counted = [count for count in throttles if count is not None]
        load = _text(self._proc / "loadavg").partition(" ")[0]
        return Snapshot(
            load_1m=_float(load),
            governor=_text(cores[0] / "cpufreq/scaling_governor") or None,
            power_mode=power_mode(),
            clocks_mhz=tuple(khz / 1e3 for khz in clocks if khz is not None),
            gpu_clocks_mhz=self._gpu_clocks(),
            temperatures_c=self._temperatures(),
            throttles=int(sum(counted)) if counted else None,
        )

    def _gpu_clocks(self) -> Dict[str, float]:
        """By device, those of a Jetson or another board whose kernel scales its GPU."""
        folders = [path for path in sorted(self._sys.glob("class/devfreq/*")) if _is_gpu(path.name)]
        clocks = {path.name: _number(path / "cur_freq") for path in folders}
        return {name: hertz / 1e6 for name, hertz in clocks.items() if hertz is not None}

    def _temperatures(self) -> Dict[str, float]:
        """By zone or sensor, in degrees."""
        found = {}
        for zone in sorted(self._sys.glob("class/thermal/thermal_zone*")):
            found[f"{zone.name} {_text(zone / 'type')}".strip()] = _number(zone / "temp")
        for sensor in sorted(self._sys.glob("class/hwmon/hwmon*/temp*_input")):
            name = f"{_text(sensor.parent / 'name')} {sensor.name.partition('_')[0]}".strip()
            found[f"{sensor.parent.name} {name}"] = _number(sensor)
        return {name: milli / 1e3 for name, milli in found.items() if milli is not None and -50e3 < milli < 200e3}

    def _cpu_seconds(self) -> Optional[Tuple[float, float]]:
        """What the usable cores computed, and what was stolen from them, since the machine started."""
        busy = stolen = 0.0
        lines = {line.partition(" ")[0]: line.split()[1:] for line in _text(self._proc / "stat").splitlines()}
        for core in self._cores:
            columns = lines.get(f"cpu{core}", [])
            if len(columns) <= STEAL or not all(map(str.isdigit, columns)):
                return None
            busy += sum(int(columns[i]) for i in (USER, NICE, SYSTEM, IRQ, SOFTIRQ)) / TICKS
            stolen += int(columns[STEAL]) / TICKS
        return busy, stolen


def _noise(others: Optional[float], stolen: Optional[float], throttled: int) -> Sequence[str]:
    """Why timings may be longer than this machine's own."""
    found = []
    if others is not None and others > OTHERS:
        found.append(f"other processes used {100 * others:.0f} % of its cores (over {100 * OTHERS:.0f} %)")
    if stolen is not None and stolen > STOLEN:
        found.append(f"{100 * stolen:.1f} % of its cores' time was stolen (over {100 * STOLEN:.0f} %)")
    if throttled > 0:
        found.append(f"its cores were throttled {throttled} times")
    return found


def _usable_cores() -> List[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _is_gpu(name: str) -> bool:
    return any(word in name for word in ("gpu", "gv11b", "ga10b", "gb10b", "gp10b", "gm20b", "mali"))


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as f:
            return f.read(1 << 20).decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def _number(path: Path) -> Optional[float]:
    return _float(_text(path))


def _float(text: str) -> Optional[float]:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e15 else None
