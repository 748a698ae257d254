"""One build among several that run at the same time: what is left of it, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dlx_deploy.errors import GateStopped
from dlx_deploy.pipeline.execution import BuildResult, Loop, write_down
from dlx_deploy.pipeline.stage import Output, Step

__all__ = ["Lane", "lane_of"]


@dataclass
class Lane:
    """A build on its way.

    ``todo``: the places in the build of its unfinished steps; ``depths``: step name → how many steps the longest way
    from it to the end has.
    """

    loop: Loop
    depths: Mapping[str, int]
    todo: list[int]
    stopped: GateStopped | None = None
    is_begun: bool = False
    is_recorded: bool = False
    busy: set[int] = field(default_factory=set)
    """Those of ``todo`` that a worker has."""

    def ready(self) -> list[int]:
        """The unfinished steps that have all that they need and that nobody is at, in order."""
        told, steps = self.loop.told, self.loop.build.steps
        return [
            place
            for place in self.todo
            if place not in self.busy
            and all(source.step in told for source in steps[place].inputs.values() if isinstance(source, Output))
        ]

    def tools(self) -> set[str]:
        """The distributions that the unfinished steps work with."""
        steps = self.loop.build.steps
        return {tool for place in self.todo for tool in steps[place].stage.tools}

    def stop(self, e: GateStopped, place: int) -> None:
        """The gate of the step at ``place`` did not pass: what comes after it is not run, nor spoken of if it was."""
        self.stopped = e
        self.todo = [at for at in self.todo if at < place]
        for step in self.loop.build.steps[place + 1 :]:
            self.loop.told.pop(step.name, None)
            self.loop.watch.ended(step, False)
        write_down(self.loop, self.loop.recorder.note)

    def result(self) -> BuildResult:
        """The build at its end, recorded."""
        loop, stopped = self.loop, self.stopped
        self.is_recorded = True
        if stopped:
            loop.recorder.update(status="stopped by a gate", error=str(stopped))
        else:
            loop.recorder.update(status="done")
        outputs = {step.name: loop.resolver.outputs(step) for step in loop.build.steps if step.name in loop.told}
        return BuildResult(loop.recorder.manifest, outputs, stopped)

    def fail(self, e: BaseException) -> None:
        """Record that the build ended by ``e``."""
        self.is_recorded = True
        if isinstance(e, KeyboardInterrupt | GeneratorExit):
            self.loop.recorder.update(status="interrupted")
        else:
            self.loop.recorder.update(status="failed", error=str(e) or type(e).__name__)

    def leave(self) -> None:
        """Record that the build ended with another one that failed, if it had begun."""
        if self.is_begun and not self.is_recorded:
            self.loop.recorder.update(status="interrupted")


def lane_of(loop: Loop) -> Lane:
    """The lane of a build of which nothing is finished yet."""
    steps = loop.build.steps
    return Lane(loop, _depths(steps), list(range(len(steps))))


def _depths(steps: Sequence[Step]) -> dict[str, int]:
    depths: dict[str, int] = {}
    for step in reversed(steps):
        below = depths.setdefault(step.name, 1)
        for source in step.inputs.values():
            if isinstance(source, Output):
                depths[source.step] = max(depths.get(source.step, 1), below + 1)
    return depths
