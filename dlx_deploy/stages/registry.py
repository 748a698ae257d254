"""The stages by name."""

from __future__ import annotations

import importlib
from typing import Any

from dlx_deploy.pipeline.stage import Stage

__all__ = ["STAGES", "load_stage"]

STAGES = {
    name: f"dlx_deploy.stages.{name}:STAGE"
    for name in ("data", "teacher", "logits", "distill", "prune", "export", "quantize", "compile", "verify", "package")
}
"""Stage name → ``module:NAME``; a stage's module imports nothing heavy."""


def load_stage(name: str) -> Stage[Any]:
    """The built-in stage ``name``."""
    module, _, attribute = STAGES[name].partition(":")
    stage: Stage[Any] = getattr(importlib.import_module(module), attribute)
    return stage
