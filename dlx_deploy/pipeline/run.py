"""The run loop: each step is found in the store or run, judged by its gates, and written to the manifest."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from dlx_deploy.errors import DlxError, EnvironmentMissing, GateStopped, StageFailed
from dlx_deploy.extras import install_command
from dlx_deploy.pipeline.allocator import release_freed
from dlx_deploy.pipeline.check import rehearse_build
from dlx_deploy.pipeline.gate import GateResult, stop_unless_passed
from dlx_deploy.pipeline.key import tool_versions
from dlx_deploy.pipeline.manifest import Manifest, Status, StepEntry, now
from dlx_deploy.pipeline.plan import Build, Planned, Resolver
from dlx_deploy.pipeline.record import SCHEMA, Record
from dlx_deploy.pipeline.recorder import Recorder
from dlx_deploy.pipeline.stage import Job, Provenance, Step
from dlx_deploy.pipeline.store import Store
from dlx_deploy.pipeline.view import seen_by

__all__ = ["BuildResult", "Watcher", "run_build"]

_log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Told what happens, as it happens; draws it for a person, or does nothing."""

    def started(self, planned: Planned) -> None:
        """The step begins to run."""

    def waiting(self, step: Step) -> None:
        """Another process is running the very same step; this one waits for its result."""

    def progress(self, step: Step, done: float, total: float, text: str) -> None:
        """The step has done so much of its work."""

    def finished(self, entry: StepEntry, gates: Sequence[GateResult]) -> None:
        """The step ran, or was found in the store."""

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
class _Loop:
    """What every step of one build has to do with."""

    build: Build
    store: Store
    resolver: Resolver
    recorder: Recorder
    watch: Watcher


def run_build(build: Build, store: Store, watch: Watcher) -> BuildResult:
    """Bring the steps of ``build`` into the store, in order, up to the end or to a gate that does not pass.

    Raises:
        EnvironmentMissing: a distribution that a step needs is not installed; said before any step runs.
        ConfigError: a step that would run cannot do what it is asked; said before any step runs, if a rehearsal shows.
        StageFailed: a stage could not do its work.
        In each case the finished steps are kept and the manifest says how far the build came.
    """
    recorder, resolver = Recorder(store, build), Resolver(store, build)
    loop = _Loop(build, store, resolver, recorder, watch)
    outputs: dict[str, dict[str, Path]] = {}
    rehearsed = False
    try:
        for step in build.steps:
            planned = resolver.examine(step)
            # Only now, and once: a build whose steps are all cached needs no library, and pays for no rehearsal.
            if planned.action == "run" and not rehearsed:
                _require_tools(build)
                rehearse_build(build, store)
                rehearsed = True
            gates = _one_step(planned, loop)
            outputs[step.name] = resolver.outputs(step)
            stop_unless_passed(step.name, gates)
    except GateStopped as e:
        recorder.update(status="stopped by a gate", error=str(e))
        return BuildResult(recorder.manifest, outputs, e)
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt):
            recorder.update(status="interrupted")
        else:
            recorder.update(status="failed", error=str(e) or type(e).__name__)
        raise
    finally:
        store.save_digests()
    recorder.update(status="done")
    return BuildResult(recorder.manifest, outputs)


def _one_step(planned: Planned, loop: _Loop) -> Sequence[GateResult]:
    step, resolver, recorder = planned.step, loop.resolver, loop.recorder
    status: Status = "cached"
    record, why = planned.record, planned.why
    if planned.action == "run":
        assert planned.key is not None
        with loop.store.lock(planned.key, lambda: loop.watch.waiting(step)):
            again = resolver.examine(step)  # another process may have finished it while we waited
            if again.action == "run":
                recorder.update()
                loop.watch.started(planned)
                record, status = _run(again, loop), "ran"
            else:
                record, why = again.record, again.why
    assert record is not None
    resolver.learn(step, record)
    entry = _entry(record, step, status, why)
    # Judged whether it ran or was cached: budgets are in no key, so a new one is held against old outputs.
    gates = step.gates(resolver.outputs(step), record.metrics) if step.gates else ()
    notes = step.notes(resolver.outputs(step), record.metrics) if step.notes else ()
    # Recorded before anybody is told and before a gate stops the build: what is said can be read up later.
    before = recorder.manifest
    tell = recorder.update if status == "ran" else recorder.note
    tell(
        steps=(*before.steps, entry),
        gates=(*before.gates, *gates),
        notes=(*before.notes, *(f"{step.name}: {text}" for text in notes)),
    )
    loop.watch.finished(entry, gates)
    for text in notes:
        loop.watch.noted(step, text)
    return gates


def _run(planned: Planned, loop: _Loop) -> Record:
    build, store = loop.build, loop.store
    step, key, document = planned.step, planned.key, planned.document
    assert key is not None
    assert document is not None

    def fill(folder: Path) -> Record:
        release_freed()
        started, clock = now(), time.monotonic()
        job = _job(step, key, folder, loop)
        try:
            team = build.team if step.stage.distributed else None
            metrics = team.run(step.stage, job) if team else step.stage.run(job)
            _check_outputs(folder, step)
            outputs = store.outputs_in(folder, sorted(step.stage.outputs))
        except DlxError as e:
            raise type(e)(f"{step.name}: {e}") from e  # its class is the exit code
        except OSError as e:
            if e.filename is None or str(folder) in str(e.filename):
                raise  # the store's own trouble: it knows what to say
            raise StageFailed(f"{step.name}: {e}") from e
        except Exception as e:
            raise StageFailed(f"{step.name}: {type(e).__name__}: {e}") from e
        return Record(
            schema=SCHEMA,
            step=step.name,
            target_name=build.target_name,
            key=key,
            document=document,
            tools=tool_versions(step.stage.tools),
            outputs=outputs,
            metrics=dict(sorted(metrics.items())),
            started=started,
            seconds=round(time.monotonic() - clock, 3),
        )

    return store.write(fill, key)


def _job(step: Step, key: str, folder: Path, loop: _Loop) -> Job[msgspec.Struct]:
    build, resolver = loop.build, loop.resolver
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
        checkpoints=loop.store.checkpoints(key),
        processes=build.processes,
        logs=build.logs / step.name if build.logs else None,
        device=build.device,
    )


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


def _require_tools(build: Build) -> None:
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
    )
