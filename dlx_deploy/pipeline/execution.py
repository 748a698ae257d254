"""One step of a build: what its stage is given, and what becomes of what it gives. Both run loops rest on this."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from dlx_deploy.errors import DlxError, EnvironmentMissing, GateStopped, StageFailed
from dlx_deploy.extras import install_command
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.key import tool_versions
from dlx_deploy.pipeline.manifest import Manifest, Status, StepEntry, now
from dlx_deploy.pipeline.plan import Build, Planned, Resolver
from dlx_deploy.pipeline.record import SCHEMA, Record
from dlx_deploy.pipeline.recorder import Recorder
from dlx_deploy.pipeline.stage import CURVES, Curves, Job, Metrics, Provenance, Step
from dlx_deploy.pipeline.store import Store
from dlx_deploy.pipeline.view import seen_by

__all__ = [
    "BuildResult",
    "Loop",
    "Watcher",
    "Work",
    "begin",
    "finish",
    "new_loop",
    "refuse_missing_tools",
    "write_down",
]


class Watcher(Protocol):
    """Told what happens, as it happens; draws it for a person, or does nothing."""

    def rehearsing(self, done: float, total: float, text: str = "") -> None:
        """Before anything runs, so much of what can be wrong has been looked at."""

    def started(self, planned: Planned) -> None:
        """The step begins to run."""

    def waiting(self, step: Step) -> None:
        """Another process is running the very same step; this one waits for its result."""

    def progress(self, step: Step, done: float, total: float, text: str) -> None:
        """The step has done so much of its work."""

    def ended(self, step: Step, is_done: bool) -> None:
        """The step works no longer; it is done, and told once those before it are, or it is not wanted any more."""

    def finished(self, entry: StepEntry, gates: Sequence[GateResult]) -> None:
        """The step ran, or was found in the store; told in the order of the plan."""

    def noted(self, step: Step, text: str) -> None:
        """Something about the finished step that must not go unseen."""


@dataclass(frozen=True)
class BuildResult:
    """A build at its end: its manifest, and where the outputs of each finished step lie (step → output → path).

    ``stopped`` is set where a gate did not pass: the steps after it were not run.
    """

    manifest: Manifest
    outputs: dict[str, dict[str, Path]]
    stopped: GateStopped | None = None


@dataclass(frozen=True)
class _Told:
    """What is said of a finished step."""

    step: Step
    entry: StepEntry
    gates: Sequence[GateResult]
    notes: Sequence[str]


@dataclass(frozen=True)
class Loop:
    """What every step of one build has to do with.

    ``told``: of each finished step, by its name; ``said``: those of them that ``watch`` has been told of.
    """

    build: Build
    store: Store
    resolver: Resolver
    recorder: Recorder
    watch: Watcher
    told: dict[str, _Told] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)


def new_loop(build: Build, store: Store, watch: Watcher) -> Loop:
    """The loop of a build of which nothing is finished yet."""
    return Loop(build, store, Resolver(store, build), Recorder(store, build), watch)


@dataclass(frozen=True)
class Work:
    """A step at work in ``folder``, which becomes its entry in the store."""

    planned: Planned
    loop: Loop
    folder: Path
    job: Job[msgspec.Struct]
    started: str
    clock: float

    def record(self, metrics: Metrics, peak_memory_mib: float | None = None) -> Record:
        """The record of what the stage wrote, with the peak of its process's memory where that is known.

        Raises:
            StageFailed: not what it declares.
        """
        step, planned = self.planned.step, self.planned
        assert planned.key is not None
        assert planned.document is not None
        curves = _taken_curves(self.folder)
        _check_outputs(self.folder, step)
        return Record(
            schema=SCHEMA,
            step=step.name,
            target_name=self.loop.build.target_name,
            key=planned.key,
            document=planned.document,
            tools=tool_versions(step.stage.tools),
            outputs=self.loop.store.outputs_in(self.folder, sorted(step.stage.outputs)),
            metrics=dict(sorted(metrics.items())),
            started=self.started,
            seconds=round(time.monotonic() - self.clock, 3),
            peak_memory_mib=UNSET if peak_memory_mib is None else peak_memory_mib,
            curves=curves,
        )

    def failed(self, e: Exception) -> NoReturn:
        """Raise what the build fails with where the stage failed with ``e``.

        Raises:
            Exception: of the class of ``e`` where that is ours, and with the name of the step.
        """
        name = self.planned.step.name
        if isinstance(e, DlxError):
            raise type(e)(f"{name}: {e}") from e  # its class is the exit code
        if not isinstance(e, OSError):
            raise StageFailed(f"{name}: {type(e).__name__}: {e}") from e
        if e.filename is None or str(self.folder) in str(e.filename):
            raise e  # the store's own trouble: it knows what to say
        raise StageFailed(f"{name}: {e}") from e


def begin(planned: Planned, loop: Loop, folder: Path) -> Work:
    """The step's job, to be done in the empty ``folder``."""
    started, clock = now(), time.monotonic()
    return Work(planned, loop, folder, _job(planned, folder, loop), started, clock)


def finish(step: Step, record: Record, status: Status, why: str, loop: Loop) -> Sequence[GateResult]:
    """Judge what the step gave, write it down and tell it; what its gates say."""
    resolver = loop.resolver
    resolver.learn(step, record)
    entry = _entry(record, step, status, why)
    # Judged whether it ran or was cached: gates' budgets are in no key of theirs, so a new one judges old outputs.
    gates = step.gates(resolver.outputs(step), record.metrics) if step.gates else ()
    notes = step.notes(resolver.outputs(step), record.metrics) if step.notes else ()
    loop.told[step.name] = _Told(step, entry, gates, notes)
    # Recorded before anybody is told and before a gate stops the build: what is said can be read up later.
    write_down(loop, loop.recorder.update if status == "ran" else loop.recorder.note)
    _tell(step, loop)
    return gates


def write_down(loop: Loop, write: Callable[..., None]) -> None:
    """What is known of the finished steps, in the order of the plan, into the manifest: ``update`` or ``note``."""
    told = [loop.told[step.name] for step in loop.build.steps if step.name in loop.told]
    write(
        steps=tuple(one.entry for one in told),
        gates=tuple(gate for one in told for gate in one.gates),
        notes=tuple(f"{one.step.name}: {text}" for one in told for text in one.notes),
    )


def _tell(step: Step, loop: Loop) -> None:
    """Tell whoever watches, in the order of the plan: a step that ends early waits for those before it."""
    for one in loop.build.steps:
        if one.name not in loop.told:
            if step.name not in loop.said:
                loop.watch.ended(step, True)
            return
        if one.name not in loop.said:
            loop.said.add(one.name)
            told = loop.told[one.name]
            loop.watch.finished(told.entry, told.gates)
            for text in told.notes:
                loop.watch.noted(one, text)


def _job(planned: Planned, folder: Path, loop: Loop) -> Job[msgspec.Struct]:
    build, resolver, step = loop.build, loop.resolver, planned.step
    assert planned.key is not None
    inputs = {}
    for name, source in step.inputs.items():
        if isinstance(source, Provenance):
            # In the folder that becomes the entry, so that a kill leaves nothing else; _check_outputs takes it away.
            inputs[name] = folder / f".{name}.json"
            inputs[name].write_bytes(resolver.provenance(step))
        else:
            inputs[name] = resolver.path(source)
    return Job(
        params=step.params,
        inputs=inputs,
        out=folder,
        target=seen_by(step.stage.name, build.target, step.stage.uses),
        seed=step.seed,
        threads=build.threads,
        progress=lambda done, total, text="": loop.watch.progress(step, done, total, text),
        checkpoints=loop.store.checkpoints(planned.key),
        processes=build.processes,
        logs=build.logs / step.name if build.logs else None,
        device=build.device,
    )


def _taken_curves(folder: Path) -> Curves | UnsetType:
    """What the stage had its job keep; the file is gone then."""
    path = folder / CURVES
    if not path.exists():
        return UNSET
    curves = msgspec.json.decode(path.read_bytes(), type=Curves)
    path.unlink()
    return curves


def _check_outputs(folder: Path, step: Step) -> None:
    for name, source in step.inputs.items():
        if isinstance(source, Provenance):
            (folder / f".{name}.json").unlink()
    # What is not declared would be in the entry and in no digest; what is declared and missing would be a hit for ever.
    written, declared = {p.name for p in folder.iterdir()}, set(step.stage.outputs)
    if written != declared:
        raise StageFailed(
            f"stage {step.stage.name!r} wrote {sorted(written)} and declares {sorted(declared)}; correct its outputs"
        )


_EXTRAS = {"timm": "timm", "transformers": "hf"}
"""What installs a tool, where it is not the extra ``build``."""


def refuse_missing_tools(build: Build) -> None:
    """Nothing, if every distribution that a step needs is installed.

    Raises:
        EnvironmentMissing: one is not.
    """
    needed = sorted({tool for step in build.steps for tool in step.stage.tools})
    missing = [tool for tool, version in tool_versions(needed).items() if version == "missing"]
    if missing:
        extras = ",".join(dict.fromkeys(_EXTRAS.get(tool, "build") for tool in missing))
        raise EnvironmentMissing(
            f"building needs {', '.join(missing)}, not installed here; install with: {install_command(extras)}"
        )


def _entry(record: Record, step: Step, status: Status, why: str) -> StepEntry:
    return StepEntry(
        step=step.name,
        status=status,
        why=why,
        key=record.key,
        document=record.document,
        tools=record.tools,
        outputs=record.outputs,
        metrics=record.metrics,
        started=record.started,
        seconds=record.seconds,
        peak_memory_mib=record.peak_memory_mib,
        curves=record.curves,
    )
