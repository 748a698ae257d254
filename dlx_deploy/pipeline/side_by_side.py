"""The run loop of several steps at a time: those that need nothing of each other, of one build or of several.

One process decides and keeps: it looks steps up, holds their locks, records, judges. Workers, a process each, do what
stages do. What comes of a build is what it is one step after another: the same bytes, the same manifest but for times,
and of several failures the one that comes first in the plan.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from dlx_deploy.errors import GateStopped
from dlx_deploy.pipeline.check import rehearsals, rehearse_steps
from dlx_deploy.pipeline.execution import BuildResult, Watcher, Work, begin, finish, new_loop, refuse_missing_tools
from dlx_deploy.pipeline.gate import stop_unless_passed
from dlx_deploy.pipeline.lane import Lane, lane_of
from dlx_deploy.pipeline.memory import with_peak
from dlx_deploy.pipeline.plan import Build, Planned
from dlx_deploy.pipeline.record import Record
from dlx_deploy.pipeline.store import Store

if TYPE_CHECKING:
    from dlx_deploy.pipeline.pool import Pool, Worker
    from dlx_deploy.pipeline.worker import Done, Failed, Said

__all__ = ["run_builds"]

_LOOK_EVERY_S = 0.2
"""While another process has the lock of a step."""

Place = tuple[int, int]
"""Which build, and which of its steps."""


def run_builds(
    builds: Sequence[Build], store: Store, watches: Sequence[Watcher], jobs: int, workers: Pool | None = None
) -> Generator[BuildResult, None, None]:
    """What ``run_build`` gives for each of ``builds``, in their order, by at most ``jobs`` processes at a time.

    ``workers`` that are there already are used first, and end with it. Close it, to stop what it has running.

    Raises:
        As ``run_build``; what a rehearsal of any of the builds shows is said before anything is kept.
    """
    lanes = [lane_of(new_loop(build, store, watch)) for build, watch in zip(builds, watches, strict=True)]
    scheduler = _Scheduler(lanes, store, jobs)
    if workers is not None:
        scheduler.pool = workers
    try:
        for lane in lanes:
            while not scheduler.is_over(lane):
                scheduler.turn()
            yield lane.result()
    except BaseException as e:
        scheduler.record(e)
        raise
    finally:
        scheduler.close()
        store.save_digests()


@dataclass(frozen=True, eq=False)
class _Running:
    """A step in the hands of a worker; ``held``: its lock and its folder."""

    place: Place
    work: Work
    worker: Worker
    held: contextlib.ExitStack


@dataclass
class _Scheduler:
    """What is to be done of all builds, and who is at it. ``waiting``: keys whose lock another process has."""

    lanes: Sequence[Lane]
    store: Store
    jobs: int
    running: list[_Running] = field(default_factory=list)
    looked_up: dict[Place, Planned] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    rehearsing: Worker | None = None
    is_rehearsed: bool = False
    failure: tuple[Place, Exception] | None = None

    @cached_property
    def pool(self) -> Pool:
        """The workers; a build whose steps are all cached needs none and imports nothing for them."""
        from dlx_deploy.pipeline.pool import Pool

        return Pool()

    def is_over(self, lane: Lane) -> bool:
        """Whether nothing of the build is left to do.

        Raises:
            Exception: a step failed, and none before it is left.
        """
        if lane.todo and self.failure is not None:
            first, error = self.failure
            if not any((number, at) < first for number, lane in enumerate(self.lanes) for at in lane.todo):
                raise error
        return not lane.todo

    def turn(self) -> None:
        """Start what can be started, and take in what comes next."""
        while self._advance():
            pass
        if self.running or self.rehearsing:
            for worker, said in self.pool.heard(_LOOK_EVERY_S if self.waiting else None):
                self._hear(worker, said)
        elif self.waiting:
            time.sleep(_LOOK_EVERY_S)
        else:
            assert self.failure is not None or not any(lane.todo for lane in self.lanes)

    def record(self, e: BaseException) -> None:
        """Write down how the builds ended that did not come to their end."""
        unfinished = [lane for lane in self.lanes if not lane.is_recorded]
        is_all = isinstance(e, KeyboardInterrupt | GeneratorExit)
        failed = unfinished if is_all else [self.lanes[self.failure[0][0]]] if self.failure else unfinished[:1]
        for lane in failed:
            lane.fail(e)
        for lane in self.lanes:
            lane.leave()

    def close(self) -> None:
        """End all workers, and what they do."""
        if "pool" in self.__dict__:
            self.pool.stop()
        self.rehearsing = None
        self._drop(lambda place: True)

    # What is next

    def _advance(self) -> bool:
        """Finish what is found in the store and start what is to run; whether that may have made more ready."""
        to_run: dict[str, tuple[Place, Planned]] = {}
        for place in [(number, at) for number, lane in enumerate(self.lanes) for at in lane.todo]:
            if self._is_ready(place) and (planned := self._look_up(place)) is not None:
                if planned.action == "hit":
                    assert planned.record is not None
                    self._finish(place, planned, planned.record, ran=False)
                else:
                    to_run.setdefault(str(planned.key), (place, planned))  # what builds share the first one makes
        for running in self.running:
            to_run.pop(str(running.work.planned.key), None)
        if to_run and not self.is_rehearsed:
            self._rehearse()
        self.waiting &= to_run.keys()
        if "pool" in self.__dict__:
            self.pool.let_go({tool for lane in self.lanes for tool in lane.tools()})
        # The longest way to the end first: what others wait for.
        queue = sorted(to_run.values(), key=lambda one: (-self.lanes[one[0][0]].depths[one[1].step.name], one[0]))
        timed = [one for one in queue if self._is_timed(*one)]
        if (timed and (self.running or self.rehearsing)) or any(
            self._is_timed(one.place, one.work.planned) for one in self.running
        ):
            return False  # what is timed runs alone
        return any(self._start(place, planned) for place, planned in timed or queue)

    def _is_ready(self, place: Place) -> bool:
        is_wanted = self.failure is None or place < self.failure[0]
        return is_wanted and place[1] in self.lanes[place[0]].ready()

    def _look_up(self, place: Place) -> Planned | None:
        if place not in self.looked_up:
            loop = self.lanes[place[0]].loop
            try:
                self.looked_up[place] = loop.resolver.examine(loop.build.steps[place[1]])
            except Exception as e:
                self._fail(place, e)
                return None
        return self.looked_up[place]

    def _is_timed(self, place: Place, planned: Planned) -> bool:
        return planned.step.stage.times_host and self.lanes[place[0]].loop.build.device is not None

    def _start(self, place: Place, planned: Planned) -> bool:
        """Give the step to a worker, or do it here where none can; false where it has to wait."""
        if len(self.running) + (self.rehearsing is not None) >= self.jobs:
            return False
        try:
            return self._start_locked(place, planned)
        except Exception as e:
            self._fail(place, e)
            return True

    def _start_locked(self, place: Place, planned: Planned) -> bool:
        lane, key = self.lanes[place[0]], str(planned.key)
        lock = self.store.lock_at_once(key)
        if lock is None:
            if key not in self.waiting:
                lane.loop.watch.waiting(planned.step)
            self.waiting.add(key)
            return False
        with lock as held:
            again = lane.loop.resolver.examine(planned.step)  # another process may have finished it meanwhile
            if again.action == "hit":
                self.looked_up[place] = again
                return True
            lane.is_begun = True
            lane.loop.recorder.update()
            lane.loop.watch.started(planned)
            self._give(place, begin(again, lane.loop, held.enter_context(self.store.working(key))), held)
        return True

    def _give(self, place: Place, work: Work, held: contextlib.ExitStack) -> None:
        from dlx_deploy.pipeline.worker import Done, packed_stage

        stage = work.planned.step.stage
        task = packed_stage(stage, work.job)
        if task is not None:
            self.running.append(_Running(place, work, self.pool.give(task), held.pop_all()))
            self.lanes[place[0]].busy.add(place[1])
            return
        self._end_rehearsal()
        try:
            metrics, peak_mib = with_peak(stage.run, work.job)
        except Exception as e:
            work.failed(e)
        self._keep(place, work, Done(metrics, peak_memory_mib=peak_mib))

    def _rehearse(self) -> None:
        """Have all builds rehearsed by a worker, while others begin; nothing is kept before it is through."""
        from dlx_deploy.pipeline.worker import packed

        self.is_rehearsed = True
        for lane in self.lanes:
            refuse_missing_tools(lane.loop.build)
        asked = [one for lane in self.lanes for one in rehearsals(lane.loop.build, self.store)]
        task = packed(rehearse_steps, asked)
        if task is None or not asked:
            rehearse_steps(asked)
        else:
            self.rehearsing = self.pool.give(task)

    # What has come

    def _end_rehearsal(self) -> None:
        while self.rehearsing is not None:
            for worker, said in self.pool.heard(workers=[self.rehearsing]):
                self._hear(worker, said)

    def _hear(self, worker: Worker, said: Said | Done | Failed) -> None:
        from dlx_deploy.pipeline.worker import Failed, Said

        running = next((one for one in self.running if one.worker is worker), None)
        if isinstance(said, Said):
            if said.level:
                logging.getLogger(said.logger).log(said.level, "%s", said.text)
            elif running is not None:
                running.work.job.progress(said.done, said.total, said.text)
        elif running is not None:
            self._end_rehearsal()
            self._take(running, said)
        elif worker is self.rehearsing:
            self.rehearsing = None
            if isinstance(said, Failed):
                raise said.error

    def _take(self, running: _Running, said: Done | Failed) -> None:
        """The step is done, or failed."""
        from dlx_deploy.pipeline.worker import Failed

        if running not in self.running:
            return  # dropped by what another one said at the same time
        place, work = running.place, running.work
        self._forget(running)
        try:
            with running.held:
                if isinstance(said, Failed):
                    if said.trace:
                        logging.getLogger(__name__).debug("%s: %s", work.planned.step.name, said.trace)
                    work.failed(said.error)
                self._keep(place, work, said)
        except Exception as e:
            self._fail(place, e)

    def _keep(self, place: Place, work: Work, done: Done) -> None:
        try:
            record = work.record(done.metrics, done.peak_memory_mib)
        except Exception as e:
            work.failed(e)
        self._finish(place, work.planned, self.store.keep(record, work.folder), ran=True)

    def _finish(self, place: Place, planned: Planned, record: Record, ran: bool) -> None:
        lane, step = self.lanes[place[0]], planned.step
        try:
            gates = finish(step, record, "ran" if ran else "cached", planned.why, lane.loop)
            lane.todo.remove(place[1])
            stop_unless_passed(step.name, gates)
        except GateStopped as e:
            lane.stop(e, place[1])
            self._drop(lambda other: other[0] == place[0] and other[1] > place[1])
        except Exception as e:
            self._fail(place, e)

    def _fail(self, place: Place, e: Exception) -> None:
        """The first failure in the order of the plan counts; what comes before it goes on, the rest is stopped."""
        if self.failure is None or place < self.failure[0]:
            self.failure = (place, e)
            self._drop(lambda other: other > place)

    def _drop(self, is_dropped: Callable[[Place], bool]) -> None:
        dropped = [running for running in self.running if is_dropped(running.place)]
        if dropped:
            self.pool.stop([running.worker for running in dropped])
        for running in dropped:
            self._forget(running)
            running.held.close()
            running.work.loop.watch.ended(running.work.planned.step, False)

    def _forget(self, running: _Running) -> None:
        self.running.remove(running)
        self.lanes[running.place[0]].busy.discard(running.place[1])
