"""What can be known to be wrong before anything runs: light checks for a plan, with heavy libraries for a build."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dlx_deploy.errors import ConfigError, DlxError
from dlx_deploy.pipeline.plan import Build, plan
from dlx_deploy.pipeline.stage import Metrics, Setup, Source, Step, Tree
from dlx_deploy.pipeline.store import Store
from dlx_deploy.progress import Progress, silent

__all__ = ["Rehearsal", "check_build", "rehearsals", "rehearse_build", "rehearse_steps"]

Check = Callable[[Setup[msgspec.Struct]], None]


@dataclass(frozen=True)
class Rehearsal:
    """One step's rehearsal."""

    step: str
    rehearse: Check
    setup: Setup[msgspec.Struct]


def check_build(build: Build) -> None:
    """Nothing, if each step's parameters fit its target, the configuration and the user's files.

    Raises:
        ConfigError: they do not; the step is named. EnvironmentMissing: something is not installed.
    """
    for step in build.steps:
        for name, path in _files(step.inputs).items():
            if not path.exists():
                _refuse_missing(step, name, path)
        if step.stage.check is not None:
            _call(step.name, step.stage.check, _setup(step, build))


def rehearse_build(build: Build, store: Store, progress: Progress = silent) -> None:
    """Likewise, with the libraries that ``run`` works with, for the steps that would run: one that is cached is right.

    Raises:
        DlxError: what the step itself would raise later; the step is named.
    """
    rehearse_steps(rehearsals(build, store), progress)


def rehearsals(build: Build, store: Store) -> list[Rehearsal]:
    """What ``rehearse_build`` asks, as values that another process can be given."""
    return [
        Rehearsal(step.name, step.stage.rehearse, _setup(step, build))
        for step in (planned.step for planned in plan(build, store) if planned.action == "run")
        if step.stage.rehearse is not None
    ]


def rehearse_steps(asked: Sequence[Rehearsal], progress: Progress = silent) -> Metrics:
    """Rehearse; there is nothing to measure.

    Raises:
        DlxError: as ``rehearse_build``.
    """
    for i, one in enumerate(asked):
        progress(i, len(asked), f"what can be known of {one.step} before anything runs")
        _call(one.step, one.rehearse, one.setup)
    progress(len(asked), len(asked))
    return {}


def _setup(step: Step, build: Build) -> Setup[msgspec.Struct]:
    return Setup(step.params, _files(step.inputs), build.config, build.target)


def _call(step: str, check: Check, setup: Setup[msgspec.Struct]) -> None:
    try:
        check(setup)
    except DlxError as e:
        raise type(e)(f"{step}: {e}") from e


def _refuse_missing(step: Step, name: str, path: Path) -> None:
    source = step.inputs[name]
    if isinstance(source, Tree):
        source.names(source.root)  # it knows better what is missing
    raise ConfigError(f"{step.name}: {name} {path} does not exist; correct the path in deploy.toml")


def _files(inputs: Mapping[str, Source]) -> dict[str, Path]:
    """What a step is given by the user: input name → file or folder."""
    paths = {name: source.root if isinstance(source, Tree) else source for name, source in inputs.items()}
    return {name: path for name, path in paths.items() if isinstance(path, Path)}
