"""The stages by name: ours, and those that other packages offer in the entry points ``dlx_deploy.stages``."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.stage import Stage
from dlx_deploy.plugins import load_plugin
from dlx_deploy.runtime.words import shortened

__all__ = ["STAGES", "load_stage"]

STAGES = {
    name: f"dlx_deploy.stages.{name}:STAGE"
    for name in (
        *("data", "baseline", "teacher", "convert", "logits", "distill", "prune"),
        *("export", "quantize", "qat", "compile", "evaluate", "calibrate", "verify", "package", "measure"),
        *("score", "weigh"),  # of a search's trials
    )
}
"""Stage name → ``module:NAME``; a stage's module imports nothing heavy."""


def load_stage(name: str) -> Stage[Any]:
    """The stage ``name``; one of another package has that package among its tools, as nothing else says what it does.

    Raises:
        ConfigError: there is none, or what a package offers is none.
    """
    if name not in STAGES:
        return _of_another_package(name)
    module, _, attribute = STAGES[name].partition(":")
    stage: Stage[Any] = getattr(importlib.import_module(module), attribute)
    return stage


def _of_another_package(name: str) -> Stage[Any]:
    plugin = load_plugin("stage", name, list(STAGES), "or install the package that offers it")
    stage = plugin.value
    if not isinstance(stage, Stage) or stage.name != name or stage.bind is None:
        raise ConfigError(
            f"stage {name!r}: entry point {plugin.point!r} gives {shortened(stage)}; rule: a Stage called {name!r} "
            "that has a bind"
        )
    return replace(stage, tools=(*stage.tools, plugin.distribution)) if plugin.distribution else stage
