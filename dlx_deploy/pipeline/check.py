"""What can be known to be wrong before anything runs: light checks for a plan, with heavy libraries for a build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from dlx_deploy.errors import ConfigError, DlxError
from dlx_deploy.pipeline.plan import Build, plan
from dlx_deploy.pipeline.stage import Setup, Source, Step, Tree
from dlx_deploy.pipeline.store import Store

__all__ = ["check_build", "rehearse_build"]


def check_build(build: Build) -> None:
    """Nothing, if each step's parameters fit its target, the configuration and the user's files.

    Raises:
        ConfigError: they do not; the step is named. EnvironmentMissing: something is not installed.
    """
    for step in build.steps:
        for name, path in _files(step.inputs).items():
            if not path.exists():
                _refuse_missing(step, name, path)
        _call(step, step.stage.check, build)


def rehearse_build(build: Build, store: Store) -> None:
    """Likewise, with the libraries that ``run`` works with, for the steps that would run: one that is cached is right.

    Raises:
        DlxError: what the step itself would raise later; the step is named.
    """
    for planned in plan(build, store):
        if planned.action == "run":
            _call(planned.step, planned.step.stage.rehearse, build)


def _call(step: Step, check: Callable[[Setup[msgspec.Struct]], None] | None, build: Build) -> None:
    if check is None:
        return
    try:
        check(Setup(step.params, _files(step.inputs), build.config, build.target))
    except DlxError as e:
        raise type(e)(f"{step.name}: {e}") from e


def _refuse_missing(step: Step, name: str, path: Path) -> None:
    source = step.inputs[name]
    if isinstance(source, Tree):
        source.names(source.root)  # it knows better what is missing
    raise ConfigError(f"{step.name}: {name} {path} does not exist; correct the path in deploy.toml")


def _files(inputs: Mapping[str, Source]) -> dict[str, Path]:
    """What a step is given by the user: input name → file or folder."""
    paths = {name: source.root if isinstance(source, Tree) else source for name, source in inputs.items()}
    return {name: path for name, path in paths.items() if isinstance(path, Path)}
