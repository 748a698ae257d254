"""This machine as a device."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.devices.device import Facts
from dlx_deploy.progress import Progress, silent
from dlx_deploy.targets import Host, read_host

if TYPE_CHECKING:
    from dlx_deploy.graph.samples import Samples
    from dlx_deploy.runtime.power.meter import Reading
    from dlx_deploy.runtime.power.sensors import Sensors
    from dlx_deploy.runtime.timing.sampling import Measured, Sampling
    from dlx_deploy.runtime.untyped import JsonTable
    from dlx_deploy.runtime.views import CommandView

__all__ = ["ThisMachine"]

RUNTIMES = ("numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "cuda-python")
ANSWERED = (0, 3, 6)
"""Exit codes of a command that has said what it was asked: done, a budget missed, undecided."""
PROC, SYS = Path("/proc"), Path("/sys")


@dataclass(frozen=True)
class ThisMachine:
    """The machine that this process runs on; packages are run in this process. ``proc`` and ``sys`` say what it is."""

    proc: Path = PROC
    sys: Path = SYS

    @property
    def name(self) -> str:
        """``this machine`` and its CPU."""
        return f"this machine ({self._host().cpu_model})"

    @property
    def identity(self) -> Mapping[str, object]:
        """Architecture, CPU, cores, its 8-bit dot product, and the board."""
        values: Mapping[str, object] = msgspec.to_builtins(self._host())
        return values

    @property
    def is_here(self) -> bool:
        """It is."""
        return True

    def facts(self) -> Facts:
        """What ``/proc``, ``/sys`` and the installed distributions say."""
        from dlx_deploy.runtime.machine import available_cores, power_mode

        host, policy = self._host(), self.sys / "devices/system/cpu/cpu0/cpufreq"
        clock_khz = _number(policy / "scaling_cur_freq")
        memory_kib = _field(self.proc / "meminfo", "MemAvailable").partition(" ")[0]
        return Facts(
            arch=host.arch,
            system=f"{platform.system()} {platform.release()}",
            cpu_model=host.cpu_model,
            cores=available_cores(),
            board=host.board,
            gpus=tuple(_field(p, "Model") for p in sorted(self.proc.glob("driver/nvidia/gpus/*/information"))),
            versions={"python": platform.python_version(), **_installed(RUNTIMES)},
            governor=_text(policy / "scaling_governor") or None,
            power_mode=power_mode(),
            clock_mhz=None if clock_khz is None else clock_khz / 1000,
            free_memory_mib=int(memory_kib) // 1024 if memory_kib.isdigit() else None,
            free_disk_mib=shutil.disk_usage(os.curdir).free // 1024**2,
        )

    def put(self, path: Path) -> str:
        """The file itself: it is here."""
        return str(path)

    def run(self, package: str, command: Sequence[str]) -> CommandView:
        """What the package says, run by the runtime of this dlx-deploy."""
        from dlx_deploy.runtime.commands.main import view_of

        return view_of(command, package)

    def run_apart(self, package: str, command: Sequence[str]) -> JsonTable:
        """What the package's own runtime says, in a fresh process of this Python."""
        from dlx_deploy.runtime.errors import BackendMissing
        from dlx_deploy.runtime.words import line

        argv = [sys.executable, package, *command, "--json"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode not in ANSWERED:
            said = line(done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2])
            raise BackendMissing(f"{command[0]} in a fresh process ended with exit code {done.returncode}: {said}")
        answer: JsonTable = msgspec.json.decode(done.stdout)
        return answer

    def energy_unknown(self, processor: str) -> str:
        """By the sensors below ``/sys``, and NVIDIA's driver."""
        return self._sensors().missing(processor)

    def energy(self, model: Path, sample: Samples, threads: int) -> Reading:
        """As ``graph.execution.latency.inference_energy``, by the same sensors."""
        from dlx_deploy.graph.execution.latency import inference_energy

        return inference_energy(model, sample, threads, self._sensors())

    def latencies(
        self, models: Mapping[str, Path], sample: Samples, sampling: Sampling, threads: int, progress: Progress = silent
    ) -> Measured:
        """As ``graph.execution.latency.interleaved_latency``."""
        from dlx_deploy.graph.execution.latency import interleaved_latency

        return interleaved_latency(models, sample, sampling, threads, progress)

    def _sensors(self) -> Sensors:
        from dlx_deploy.runtime.power.sensors import find_sensors

        return find_sensors(self.sys, self.proc / "driver/nvidia/version")

    def _host(self) -> Host:
        return read_host(self.proc / "cpuinfo", self.proc / "device-tree/model")


def _installed(distributions: Sequence[str]) -> dict[str, str]:
    versions = {}
    for name in distributions:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\x00\n ")
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if text.isdigit() else None


def _field(path: Path, name: str) -> str:
    """What stands after ``name:`` in a file of such lines; empty where it does not."""
    for line in _text(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
