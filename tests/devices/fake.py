"""A device that answers what a test tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlx_deploy.devices.device import Facts
from dlx_deploy.runtime.power.meter import Energy, Reading
from dlx_deploy.runtime.timing.latency import summarise
from dlx_deploy.runtime.timing.sampling import Measured
from dlx_deploy.runtime.untyped import JsonTable
from dlx_deploy.runtime.views import Outcome

__all__ = ["FakeDevice"]


@dataclass
class FakeDevice:
    """``ms``: model → the milliseconds that its timings take, one for all of ``rounds`` or in the order measured."""

    cpu: str = "a CPU"
    ms: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 40
    says: JsonTable = field(default_factory=dict)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    is_here: bool = True

    @property
    def name(self) -> str:
        return f"a board ({self.cpu})"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"cpu": self.cpu}

    def facts(self) -> Facts:
        return Facts(
            arch="aarch64",
            system="Linux",
            cpu_model=self.cpu,
            cores=4,
            board="a board",
            gpus=(),
            versions={"python": "3.8.10"},
            governor=None,
            power_mode="15W",
            clock_mhz=None,
            free_memory_mib=512,
            free_disk_mib=1024,
        )

    def put(self, path: Path) -> str:
        self.asked.append(("put", path))
        return f"/there/{path.name}"

    def run(self, package: str, command: Sequence[str]) -> Outcome:
        self.asked.append(("run", package, *command))
        return Outcome({"package": package}, "done")

    def run_apart(self, package: str, command: Sequence[str]) -> JsonTable:
        self.asked.append(("run_apart", package, *command))
        return self.says

    def energy_unknown(self, processor: str) -> str:
        return "no sensor"

    def energy(self, model: Path, sample: Any, threads: int) -> Reading:
        self.asked.append(("energy", model, threads))
        mj = self.says.get("mj")
        return (
            Reading(None, "no sensor") if mj is None else Reading(Energy(mj, mj, mj, 0.0, 9, 9, 3.0, 2.0, 1.0, ("s",)))
        )

    def latencies(
        self, models: Mapping[str, Path], sample: Any, sampling: Any, threads: int, progress: Any = None
    ) -> Measured:
        self.asked.append(("latencies", *models))
        timed = {name: (np.broadcast_to(self.ms[name], self.rounds) * 1e6).tolist() for name in models}
        return Measured({name: summarise(timings) for name, timings in timed.items()})
