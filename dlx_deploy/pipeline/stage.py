"""What a stage is, and all that its ``run`` gets to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec

from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.view import NO_TARGET
from dlx_deploy.progress import Progress, silent

if TYPE_CHECKING:
    from dlx_deploy.config import Config
    from dlx_deploy.devices.device import Device
    from dlx_deploy.targets import Profile

__all__ = [
    "CURVES",
    "AnyStage",
    "Bound",
    "Curves",
    "Job",
    "Metrics",
    "Network",
    "Offers",
    "Output",
    "Provenance",
    "Setup",
    "Source",
    "Stage",
    "Step",
    "Team",
    "Tree",
]

Curves = dict[str, tuple[float, ...]]
"""Metric name → its value after each epoch."""
CURVES = ".curves.json"
"""The file that takes them from a stage to its record; no output, so they are in no key."""
Metrics = dict[str, float]
"""Metric name → value, the unit in the name: ``latency_p90_ms``, ``size_bytes``."""

P = TypeVar("P", bound=msgspec.Struct)
P_co = TypeVar("P_co", bound=msgspec.Struct, covariant=True)


@dataclass(frozen=True)
class Job(Generic[P_co]):
    """All that a stage's ``run`` gets.

    ``target`` is a view of the profile that has the fields in the stage's ``uses`` and refuses the others by name.
    ``inputs`` maps input names to read-only paths (a file or a folder of an earlier stage, or a user's file).
    ``out`` is an empty folder: write one file or folder per declared output there, and nothing elsewhere except
    below ``checkpoints``, which survives a kill and belongs to this key alone, and ``logs``, if it is given.
    ``processes`` of this machine run the stage together. ``device`` is the target where that can be measured.
    """

    params: P_co
    inputs: Mapping[str, Path]
    out: Path
    target: Profile = NO_TARGET
    seed: int = 0
    threads: int = 0
    progress: Progress = silent
    checkpoints: Path = Path()
    processes: int = 1
    logs: Path | None = None
    device: Device | None = None

    def keep_curves(self, curves: Mapping[str, Sequence[float]]) -> None:
        """Have the record keep how training went, six digits of each value; no byte of an output depends on it."""
        rounded = {name: tuple(float(f"{value:.6g}") for value in values) for name, values in curves.items()}
        (self.out / CURVES).write_bytes(msgspec.json.encode(rounded))


@dataclass(frozen=True)
class Setup(Generic[P_co]):
    """All that is known of a step before anything has run: what was configured, and the user's files in ``inputs``.

    ``config`` is the whole configuration; ``target`` the whole profile, as nothing that is checked enters a key.
    """

    params: P_co
    inputs: Mapping[str, Path]
    config: Config
    target: Profile


@dataclass(frozen=True)
class Stage(Generic[P]):
    """A kind of step: a frozen record, not a class hierarchy. ``P`` is the struct of its parameters."""

    name: str
    version: int
    """Bumped by hand when ``run`` would give other bytes for the same inputs; a fingerprint test asks."""
    params: type[P]
    inputs: Sequence[str]
    outputs: Sequence[str]
    run: Callable[[Job[P]], Metrics]
    uses: Sequence[str] = ()
    """Fields of the target's profile that enter the key; ``run`` can look at no others."""
    tools: Sequence[str] = ()
    """Distributions whose versions enter the key; one that is missing stops the build before any work."""
    measures_host: bool = False
    """True where the result depends on the device (timings): its identity then enters the key."""
    times_host: bool = False
    """True where that is a matter of time: nothing else runs beside it then."""
    distributed: bool = False
    """True where a team of processes may run the stage together."""
    check: Callable[[Setup[P]], None] | None = None
    """Raises where ``run`` would, as far as milliseconds and no heavy library show it; also called for a plan."""
    rehearse: Callable[[Setup[P]], None] | None = None
    """The same, with all that ``run`` imports; called before the first step of a build runs, if this one would."""
    bind: Callable[[Config, Profile, Offers], Sequence[Bound]] | None = None
    """The stage's steps in one build, none where the configuration leaves it out; milliseconds, no heavy library."""


AnyStage = Stage[Any]
"""A stage of whatever parameters."""


class Team(Protocol):
    """Several processes that run a stage together; this is the one that keeps what the stage writes."""

    def run(self, stage: Stage[P], job: Job[P]) -> Metrics:
        """What ``stage.run(job)`` gives."""
        ...


@dataclass(frozen=True)
class Output:
    """A reference to what an earlier step wrote."""

    step: str
    name: str


@dataclass(frozen=True)
class Provenance:
    """Stands for a generated JSON input: the key documents of every step that this one rests on."""


@dataclass(frozen=True)
class Tree:
    """A user's folder of which only some files count: ``names`` lists them, relative to ``root``."""

    root: Path
    names: Callable[[Path], Sequence[str]]


Source = Output | Provenance | Path | Tree


@dataclass(frozen=True)
class Step:
    """A stage at its place in one build: parameters, and where each input comes from."""

    name: str
    stage: AnyStage
    params: msgspec.Struct
    inputs: Mapping[str, Source]
    seed: int = 0
    gates: Callable[[Mapping[str, Path], Metrics], Sequence[GateResult]] | None = None
    """Judges the step's outputs after it ran or was found, or raises where what follows could not use them; a pure
    function, so a new budget reruns nothing."""
    notes: Callable[[Mapping[str, Path], Metrics], Sequence[str]] | None = None
    """What must be said of the step's outputs after it ran or was found; a pure function, and it stops nothing."""

    def __post_init__(self) -> None:
        unknown = set(self.inputs) - set(self.stage.inputs)
        if unknown:
            raise ValueError(f"step {self.name!r} binds {sorted(unknown)}, which stage {self.stage.name!r} has not")


@dataclass(frozen=True)
class Network:
    """A torch network that a step made.

    ``library``: the distribution that defines it, empty for our own and the user's. Whoever rebuilds the network has it
    among its tools.
    """

    model: Output
    library: str = ""


@dataclass(frozen=True)
class Offers:
    """What steps have for those that are bound after them; each mapping is in the order in which it was offered.

    ``networks`` and ``candidates``, their ONNX models, are chains: each was made from the one before it, the first is
    the reference for all. What is shipped is the last candidate, or the one before it where that is not slower.
    ``outputs``: everything else, under the name of what it is to others. ``instead``: names that an earlier step
    offered too, whose place is taken.
    """

    outputs: Mapping[str, Output] = field(default_factory=dict)
    networks: Mapping[str, Network] = field(default_factory=dict)
    candidates: Mapping[str, Output] = field(default_factory=dict)
    instead: Sequence[str] = ()

    def output(self, name: str) -> Output:
        """The output ``name``.

        Raises:
            ValueError: no earlier stage offers it.
        """
        if name not in self.outputs:
            raise ValueError(f"no earlier stage offers {name!r}; offered: {', '.join(self.outputs) or 'nothing'}")
        return self.outputs[name]

    def and_of(self, later: Offers) -> Offers:
        """These and those of a later step.

        Raises:
            ValueError: a name is offered twice, and not ``instead``.
        """
        twice = [
            *(self.outputs.keys() & later.outputs.keys()),
            *(self.networks.keys() & later.networks.keys()),
            *(self.candidates.keys() & later.candidates.keys()),
        ]
        if twice := sorted(set(twice).difference(later.instead)):
            raise ValueError(f"{', '.join(twice)} is offered by an earlier stage too; choose another name")
        return Offers(
            {**self.outputs, **later.outputs},
            {**self.networks, **later.networks},
            {**self.candidates, **later.candidates},
        )


@dataclass(frozen=True)
class Bound:
    """A step at its place in one build, and what it offers to those after it."""

    step: Step
    offers: Offers = Offers()
