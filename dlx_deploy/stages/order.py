"""In which order the stages bind themselves to a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dlx_deploy.config import Config
from dlx_deploy.config.strict import nearest
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Offers, Step
from dlx_deploy.stages.registry import STAGES, load_stage
from dlx_deploy.targets import Profile
from dlx_deploy.tasks import tools_of

__all__ = ["ORDER", "steps_for"]

ORDER = (
    "data",
    "baseline",
    "teacher",
    "convert",
    "export",
    "logits",
    "distill",
    "export",
    "prune",
    "export",
    "quantize",
    "qat",
    "quantize",
    "compile",
    "evaluate",
    "calibrate",
    "verify",
    "package",
    "measure",
)
"""``export`` follows each stage that makes a network: one that cannot be exported is known before more is trained.
``quantize`` follows ``qat`` where that trains what it gave."""


def steps_for(config: Config, profile: Profile) -> list[Step]:
    """The steps of ``config`` for one target; steps that do not look at the target are shared by all of them.

    Raises:
        ConfigError, EnvironmentMissing: as the stages' ``bind``, or a stage of another package has no place.
    """
    steps: list[Step] = []
    upstream, brought = Offers(), tools_of(config.data)
    for name in _order(config):
        stage = load_stage(name)
        if stage.bind is None:
            raise ValueError(f"stage {name!r} has no bind, so nothing says what it is given; add one to its record")
        for bound in stage.bind(config, profile, upstream):
            steps.append(_with_tools(bound.step, (*stage.tools, *brought)))
            upstream = upstream.and_of(bound.offers)
    return steps


def _order(config: Config) -> list[str]:
    """Our stages, and each of other packages behind the last place of the one that it names."""
    order = list(ORDER)
    for name, table in config.stages.items():
        after = table.get("after", "")
        if name in STAGES:
            raise ConfigError(f"stages.{name}: {name!r} is a stage of dlx-deploy itself; its keys belong into [{name}]")
        if after not in order:
            raise ConfigError(
                f"stages.{name}.after is {after!r}; rule: the stage behind which it takes its place; "
                f"{nearest(str(after), sorted(set(order)))}"
            )
        order.insert(len(order) - order[::-1].index(after), name)
    return order


def _with_tools(step: Step, tools: Sequence[str]) -> Step:
    missing = [tool for tool in tools if tool not in step.stage.tools]
    return replace(step, stage=replace(step.stage, tools=(*step.stage.tools, *missing))) if missing else step
