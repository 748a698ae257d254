"""The recipe: in which order the stages bind themselves to a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from dlx_deploy.config import Config
from dlx_deploy.pipeline.stage import Offers, Step
from dlx_deploy.stages.registry import load_stage
from dlx_deploy.targets import Profile

__all__ = ["ORDER", "steps_for"]

ORDER = (
    "data",
    "teacher",
    "export",
    "logits",
    "distill",
    "export",
    "prune",
    "export",
    "quantize",
    "compile",
    "verify",
    "package",
)
"""``export`` follows each stage that makes a network: one that cannot be exported is known before more is trained."""


def steps_for(config: Config, profile: Profile, order: Sequence[str] = ORDER) -> list[Step]:
    """The steps of ``config`` for one target; steps that do not look at the target are shared by all of them.

    Raises:
        ConfigError, EnvironmentMissing: as the stages' ``bind``.
    """
    steps: list[Step] = []
    upstream = Offers()
    for name in order:
        bind = load_stage(name).bind
        if bind is None:
            raise ValueError(f"stage {name!r} has no bind, so nothing says what it is given; add one to its record")
        for bound in bind(config, profile, upstream):
            steps.append(bound.step)
            upstream = upstream.and_of(bound.offers)
    return steps
