"""The run loop: each step is found in the store or run, judged by its gates, and written to the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dlx_deploy.errors import GateStopped
from dlx_deploy.pipeline.allocator import release_freed
from dlx_deploy.pipeline.check import rehearse_build
from dlx_deploy.pipeline.execution import (
    BuildResult,
    Loop,
    Watcher,
    begin,
    finish,
    new_loop,
    refuse_missing_tools,
)
from dlx_deploy.pipeline.gate import GateResult, stop_unless_passed
from dlx_deploy.pipeline.manifest import Status
from dlx_deploy.pipeline.memory import with_peak
from dlx_deploy.pipeline.plan import Build, Planned
from dlx_deploy.pipeline.record import Record
from dlx_deploy.pipeline.store import Store

__all__ = ["run_build"]


def run_build(build: Build, store: Store, watch: Watcher) -> BuildResult:
    """Bring the steps of ``build`` into the store, in order, up to the end or to a gate that does not pass.

    Raises:
        EnvironmentMissing: a distribution that a step needs is not installed; said before any step runs.
        ConfigError: a step that would run cannot do what it is asked; said before any step runs, if a rehearsal shows.
        StageFailed: a stage could not do its work.
        In each case the finished steps are kept and the manifest says how far the build came.
    """
    loop = new_loop(build, store, watch)
    recorder, resolver = loop.recorder, loop.resolver
    outputs: dict[str, dict[str, Path]] = {}
    rehearsed = False
    try:
        for step in build.steps:
            planned = resolver.examine(step)
            # Only now, and once: a build whose steps are all cached needs no library, and pays for no rehearsal.
            if planned.action == "run" and not rehearsed:
                refuse_missing_tools(build)
                rehearse_build(build, store, watch.rehearsing)
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


def _one_step(planned: Planned, loop: Loop) -> Sequence[GateResult]:
    step, resolver = planned.step, loop.resolver
    status: Status = "cached"
    record, why = planned.record, planned.why
    if planned.action == "run":
        assert planned.key is not None
        with loop.store.lock(planned.key, lambda: loop.watch.waiting(step)):
            again = resolver.examine(step)  # another process may have finished it while we waited
            if again.action == "run":
                loop.recorder.update()
                loop.watch.started(planned)
                record, status = _run(again, loop), "ran"
            else:
                record, why = again.record, again.why
    assert record is not None
    return finish(step, record, status, why, loop)


def _run(planned: Planned, loop: Loop) -> Record:
    stage, key = planned.step.stage, planned.key
    assert key is not None

    def fill(folder: Path) -> Record:
        release_freed()
        work = begin(planned, loop, folder)
        try:
            team = loop.build.team if stage.distributed else None
            run = partial(team.run, stage) if team else stage.run
            return work.record(*with_peak(run, work.job))
        except Exception as e:
            work.failed(e)

    return loop.store.write(fill, key)
