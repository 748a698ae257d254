"""A three-step build of toy stages: number → double → sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.manifest import StepEntry
from dlx_deploy.pipeline.plan import Build, Planned
from dlx_deploy.pipeline.stage import Job, Metrics, Output, Provenance, Stage, Step
from dlx_deploy.pipeline.store import Store


class NumberParams(msgspec.Struct, frozen=True):
    value: int = 1


class NoParams(msgspec.Struct, frozen=True):
    pass


class Board(msgspec.Struct, frozen=True):
    name: str = "board"
    factor: int = 10
    colour: str = "green"


BOARD = Board()


@dataclass
class Toy:
    """Counts how often each stage ran, and lets a test break one."""

    ran: list[str] = field(default_factory=list)
    trouble: Callable[[Job, str], None] = lambda job, name: None

    def number(self, job: Job) -> Metrics:
        self.ran.append("number")
        self.trouble(job, "number")
        (job.out / "n.txt").write_text(str(job.params.value))
        return {"value": float(job.params.value)}

    def parity(self, job: Job) -> Metrics:
        self.ran.append("parity")
        self.trouble(job, "parity")
        (job.out / "bit.txt").write_text(str(int(job.inputs["n"].read_text()) % 2))
        return {}

    def scale(self, job: Job) -> Metrics:
        self.ran.append("scale")
        self.trouble(job, "scale")
        value = int(job.inputs["bit"].read_text()) * job.target.factor
        folder = job.out / "result"
        folder.mkdir()
        (folder / "value.txt").write_text(str(value))
        (folder / "provenance.json").write_bytes(job.inputs["provenance"].read_bytes())
        job.progress(1, 1, "scaled")
        return {"value": float(value)}

    def steps(self, value: int = 1, gates: Any = None, versions: tuple[int, int, int] = (1, 1, 1)) -> list[Step]:
        number = Stage("number", versions[0], NumberParams, (), ("n.txt",), self.number)
        parity = Stage("parity", versions[1], NoParams, ("n",), ("bit.txt",), self.parity, tools=("msgspec",))
        scale = Stage("scale", versions[2], NoParams, ("bit", "provenance"), ("result",), self.scale, uses=("factor",))
        return [
            Step("number", number, NumberParams(value), {}),
            Step("parity", parity, NoParams(), {"n": Output("number", "n.txt")}),
            Step(
                "scale",
                scale,
                NoParams(),
                {"bit": Output("parity", "bit.txt"), "provenance": Provenance()},
                gates=gates,
            ),
        ]

    def build(self, value: int = 1, target: Any = BOARD, **kinds: Any) -> Build:
        return Build("board", target, self.steps(value, **kinds), {"value": value})


class Events:
    """A watcher that writes everything down."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.entries: list[StepEntry] = []
        self.rehearsed: list[tuple[float, float, str]] = []
        self.on_start: Callable[[str], None] = lambda name: None

    def rehearsing(self, done: float, total: float, text: str = "") -> None:
        self.rehearsed.append((done, total, text))

    def started(self, planned: Planned) -> None:
        self.log.append(f"started {planned.step.name}: {planned.why}")
        self.on_start(planned.step.name)

    def waiting(self, step: Step) -> None:
        self.log.append(f"waiting {step.name}")

    def progress(self, step: Step, done: float, total: float, text: str) -> None:
        self.log.append(f"progress {step.name} {done}/{total} {text}")

    def ended(self, step: Step, is_done: bool) -> None:
        self.log.append(f"{'done' if is_done else 'stopped'} {step.name}")

    def finished(self, entry: StepEntry, gates: Sequence[GateResult]) -> None:
        self.entries.append(entry)

    def noted(self, step: Step, text: str) -> None:
        self.log.append(f"noted {step.name}: {text}")

    def status(self) -> dict[str, str]:
        return {entry.step: entry.status for entry in self.entries}


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / ".dlx")


__all__ = ["Board", "Events", "NoParams", "NumberParams", "Toy"]
