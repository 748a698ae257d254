"""What a build would do, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.pipeline.key import KeyDocument
from dlx_deploy.pipeline.plan import Build, Planned
from dlx_deploy.pipeline.plan import plan as plan_build
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.graphs import verdict_lines
from dlx_deploy.report.table import format_table
from dlx_deploy.runtime.words import line
from dlx_deploy.stages.support.operators import teacher_verdicts
from dlx_deploy.targets.operators import Verdict

__all__ = ["PlanView", "PlannedStep", "StepView", "WhyView", "view_plan", "view_step"]


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step for one target; ``key`` is unknown while an input is."""

    target: str
    step: str
    action: Literal["hit", "run"]
    why: str
    key: str | None


class PlanView(msgspec.Struct, frozen=True):
    """``steps``: those of every target; ``first``: without those that a later target shares with an earlier one.

    ``verdicts``: what becomes on each target of the operators of a teacher that came as ONNX.
    """

    steps: tuple[PlannedStep, ...]
    first: tuple[PlannedStep, ...]
    verdicts: tuple[Verdict, ...] = ()

    @property
    def data(self) -> tuple[PlannedStep, ...]:
        """Every step of every target."""
        return self.steps

    @property
    def text(self) -> str:
        """A table in which what targets share stands once."""
        rows = [[step.step, step.action, step.why, step.target] for step in self.first]
        table = format_table(["stage", "", "why", "first needed for"], rows)
        return "\n".join([table, *([""] if self.verdicts else []), *verdict_lines(self.verdicts)])


class StepView(PlannedStep, frozen=True, kw_only=True):
    """A planned step and what its key is made of, where that is known."""

    document: KeyDocument | None


class WhyView(msgspec.Struct, frozen=True):
    """One step, for each target."""

    steps: tuple[StepView, ...]

    @property
    def data(self) -> tuple[StepView, ...]:
        """The steps."""
        return self.steps

    @property
    def text(self) -> str:
        """A line for each target, and below it the key and its document."""
        lines = []
        for step in self.steps:
            lines.append(line(f"{step.step} for {step.target}: {step.action}: {step.why}"))
            if step.document is not None:
                lines += [f"key {step.key}", canonical_json(step.document).decode().rstrip()]
        return "\n".join(lines)


def view_plan(builds: Sequence[Build], store: Store) -> PlanView:
    """Each step of each target with hit or run and why."""
    steps, first = [], []
    shown: set[str] = set()
    for build in builds:
        for planned in plan_build(build, store):
            steps.append(PlannedStep(**_fields(build, planned)))
            if (sight := _sight(build, planned)) not in shown:
                shown.add(sight)
                first.append(steps[-1])
    store.save_digests()
    verdicts = teacher_verdicts(builds[0].config, [build.target for build in builds]) if builds else []
    return PlanView(tuple(steps), tuple(first), tuple(verdicts))


def view_step(builds: Sequence[Build], store: Store, name: str) -> WhyView:
    """Why the step ``name`` would run or not, and its key document.

    Raises:
        ConfigError: there is no such step.
    """
    names = list(dict.fromkeys(step.name for build in builds for step in build.steps))
    if name not in names:
        raise ConfigError(f"no stage {name!r}; {nearest(name, names)}")
    steps = []
    for build in builds:
        planned = next(p for p in plan_build(build, store) if p.step.name == name)
        steps.append(StepView(**_fields(build, planned), document=planned.document))
    return WhyView(tuple(steps))


def _fields(build: Build, planned: Planned) -> dict[str, Any]:
    return {
        "target": build.target_name,
        "step": planned.step.name,
        "action": planned.action,
        "why": planned.why,
        "key": planned.key,
    }


def _sight(build: Build, planned: Planned) -> str:
    """What of a step can differ between targets; equal for those that share it."""
    stage = planned.step.stage
    looks_at = [getattr(build.target, field) for field in stage.uses]
    return repr((planned.step.name, looks_at, build.device is not None and stage.measures_host, planned.why))
