"""What the commands do: from a configuration and target names to packages, plans and explanations."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dlx_deploy.config import Config, load_config
from dlx_deploy.delivery import deliver, package_path, report_path, set_aside
from dlx_deploy.devices.choice import device_for
from dlx_deploy.errors import GateStopped
from dlx_deploy.pipeline.check import check_build
from dlx_deploy.pipeline.collect import collect_garbage
from dlx_deploy.pipeline.execution import BuildResult, Watcher
from dlx_deploy.pipeline.memory import fitting_jobs
from dlx_deploy.pipeline.plan import Build
from dlx_deploy.pipeline.plan import plan as plan_build
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.side_by_side import run_builds
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.builds import BuildView, Delivered, view_build
from dlx_deploy.report.live import LiveWatcher, QuietWatcher
from dlx_deploy.report.page.beside import write_beside
from dlx_deploy.report.screen import Screen, stderr_console
from dlx_deploy.report.stores import CollectedView
from dlx_deploy.runtime.machine import available_cores
from dlx_deploy.stages.convert import foreseen, used_as_it_is
from dlx_deploy.stages.order import steps_for
from dlx_deploy.stages.support.budgets import budget_notes
from dlx_deploy.stages.support.engine import missing_builder
from dlx_deploy.stages.support.team import Team, local_processes, team_for
from dlx_deploy.targets import Profile, load_target, read_host
from dlx_deploy.tasks import task_for
from dlx_deploy.tasks.recipes import asked_apart, with_recipe

if TYPE_CHECKING:
    from dlx_deploy.pipeline.pool import Pool

__all__ = [
    "DEFAULT_CONFIG",
    "BuildOptions",
    "Built",
    "Looking",
    "Work",
    "build_for",
    "build_packages",
    "collect",
    "find_config",
    "load_work",
    "recipes_in",
    "usual_jobs",
]


DEFAULT_CONFIG = Path("deploy.toml")
"""What is read where no other file is named, if it is there."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """A configuration with its targets resolved. ``notes`` are said before anything is done.

    ``workers``: processes that have begun already, which whoever builds goes on with and ends.
    """

    config: Config
    builds: tuple[Build, ...]
    store: Store
    notes: tuple[str, ...]
    workers: Pool | None = None


@dataclass(frozen=True)
class Looking:
    """How work is loaded: ``deep`` trusts no time stamp of the store, ``exact_tools`` no other patch version of a tool.

    With ``jobs`` of 2 and more what takes torch is asked in a process that then does the first of them.
    """

    deep: bool = False
    exact_tools: bool = False
    jobs: int = 1


LOOKING = Looking()


@dataclass(frozen=True)
class Built:
    """One target's build, and the gate that stopped it, if one did."""

    view: BuildView
    failure: GateStopped | None


def find_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration at ``path``, else ./deploy.toml if there is one, else the built-in one.

    Raises:
        ConfigError: see ``load_config``.
    """
    return load_config(path or (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None), overrides)


def build_for(config: Config, profile: Profile) -> Build:
    """Everything that a build of ``config`` for one target needs."""
    return Build(
        target_name=profile.name,
        target=profile,
        steps=steps_for(config, profile),
        config=config,
        host=msgspec.to_builtins(read_host()),
        device=device_for(profile),
        threads=config.threads,
    )


def load_work(
    config: Path | Config | None,
    targets: Sequence[str] | None,
    overrides: Sequence[str] | None,
    store: Path,
    looking: Looking = LOOKING,
) -> Work:
    """Everything resolved and checked that can be before any stage runs; ``config`` may be loaded already.

    Raises:
        ConfigError: the configuration, an override, a target name or the folder of the data is not valid.
    """
    from dlx_deploy.nn.data.catalogue_checks import check_source

    loaded = config if isinstance(config, Config) else find_config(config, overrides or ())
    check_source(loaded.data)
    workers = asked_apart(loaded, recipes_in(store)) if looking.jobs > 1 else None
    try:
        return replace(_resolved(loaded, targets, store, looking), workers=workers)
    except BaseException:
        if workers is not None:
            workers.stop()
        raise


def _resolved(loaded: Config, targets: Sequence[str] | None, store: Path, looking: Looking) -> Work:
    loaded, recipe_notes = with_recipe(loaded, recipes_in(store))
    resolved = [load_target(name) for name in dict.fromkeys(targets or loaded.targets)]
    builds = tuple(replace(build_for(loaded, target.profile), exact_tools=looking.exact_tools) for target in resolved)
    said = [note for target in resolved for note in (target.note, missing_builder(loaded, target.profile)) if note]
    for build in builds:
        check_build(build)
    profiles = [target.profile for target in resolved]
    said += [*used_as_it_is(loaded), *foreseen(loaded, profiles), *budget_notes(loaded, profiles)]
    notes = tuple(dict.fromkeys((*recipe_notes, *said)))
    return Work(loaded, builds, Store(store, looking.deep), notes)


def recipes_in(store: Path) -> Path:
    """Where a store's folder keeps what the metadata of weights say of preprocessing."""
    return store / "recipes"


@dataclass(frozen=True)
class BuildOptions:
    """How a build runs, none of which changes its result: ``processes`` that train together (on one machine), ``jobs``
    steps at a time, ``logs`` for TensorBoard, ``quiet`` without progress, ``say`` for what must not go unseen."""

    processes: int = 1
    jobs: int = 1
    logs: Path | None = None
    quiet: bool = False
    say: Callable[[str], None] = _log.warning


BUILD_OPTIONS = BuildOptions()


def usual_jobs() -> int:
    """How many steps run at a time where nobody says."""
    return fitting_jobs(available_cores())


def build_packages(work: Work, output: Path, options: BuildOptions = BUILD_OPTIONS) -> Iterator[Built]:
    """Build target after target; what they share is built once, and a gate that stops one does not stop the others.

    Under a package's name there is afterwards only what this build made: where it made none, because of a gate, an
    error or an interrupt, an earlier package is moved aside.

    Raises:
        ConfigError: more processes than this machine has devices for.
    """
    todo = {build.target_name: package_path(work.config, build, output) for build in work.builds}
    try:
        with _results(work, options) as results:
            for build, result in zip(work.builds, results, strict=True):
                package = None if result.stopped else deliver(result, todo[build.target_name])
                aside = set_aside(todo[build.target_name], options.say) if package is None else None
                report = write_beside(
                    result, report_path(todo[build.target_name]), package, work.store.root, options.say
                )
                del todo[build.target_name]
                view = view_build(work.config, result, Delivered(package, aside, report))
                yield Built(view, result.stopped)
    except BaseException:
        for path in todo.values():
            set_aside(path, options.say)
        raise


@contextlib.contextmanager
def _results(work: Work, options: BuildOptions) -> Iterator[Iterator[BuildResult]]:
    """What becomes of each build, in order, as they are asked for."""
    with _team(options.processes) as team, _drawn(options) as screen:
        watchers = _watchers(work, options, screen)
        builds = [
            replace(build, team=team, processes=local_processes(options.processes), logs=options.logs)
            for build in work.builds
        ]
        if team is not None or options.jobs == 1:
            one_by_one = (run_build(build, work.store, watch) for build, watch in zip(builds, watchers, strict=True))
            yield _undisturbed(one_by_one, screen)
        else:
            with contextlib.closing(
                run_builds(builds, work.store, watchers, options.jobs, work.workers)
            ) as side_by_side:
                yield _undisturbed(side_by_side, screen)


def _undisturbed(results: Iterator[BuildResult], screen: Screen | None) -> Iterator[BuildResult]:
    """``results``; nothing is drawn while whoever takes one is at it."""
    for result in results:
        with screen.paused() if screen else contextlib.nullcontext():
            yield result


@contextlib.contextmanager
def _team(processes: int) -> Iterator[Team | None]:
    team = team_for(processes)
    try:
        yield team
    except BaseException:
        if team is not None:
            team.abandon()
        raise
    finally:
        if team is not None:
            team.close()


def _drawn(options: BuildOptions) -> contextlib.AbstractContextManager[Screen | None]:
    return contextlib.nullcontext() if options.quiet else Screen(stderr_console())


def _watchers(work: Work, options: BuildOptions, screen: Screen | None) -> Sequence[Watcher]:
    """One for each build."""
    if screen is None:
        return [QuietWatcher(options.say)] * len(work.builds)
    score = task_for(work.config.data).answers.comparison.name
    names = [build.target_name if len(work.builds) > 1 else "" for build in work.builds]
    return [LiveWatcher(screen, score, name) for name in names]


def collect(config: Config, store: Path, dry_run: bool) -> CollectedView:
    """Garbage collection that keeps what the newest builds and ``config`` need."""
    opened = Store(store)
    config, _ = with_recipe(config, recipes_in(store))
    builds = [build_for(config, load_target(name).profile) for name in config.targets]
    keep = [p.key for build in builds for p in plan_build(build, opened) if p.key is not None]
    return CollectedView(collect_garbage(opened, keep, dry_run), dry_run)
