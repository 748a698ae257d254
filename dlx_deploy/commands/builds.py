"""Commands of the machine that builds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from dlx_deploy.commands.bringing import Asked, build_all, load_asked
from dlx_deploy.commands.ci_output import CiOutput, reporting, taking_ci
from dlx_deploy.commands.given import Given, taking_given
from dlx_deploy.commands.on_board import BuildOnOption, Reaching, boards_of, prove_packages, taking_board
from dlx_deploy.commands.options import (
    DEFAULT_STORE,
    ConfigOption,
    ExactToolsOption,
    ForceOption,
    JobsOption,
    JsonOption,
    OutputOption,
    StoreOption,
    WriteConfigOption,
    print_view,
    say,
)

__all__ = ["build", "gc", "plan", "status", "why"]


@taking_ci
@taking_given
@taking_board
def build(
    given: Given,
    ci: CiOutput,
    reaching: Reaching,
    output: OutputOption = Path("dist"),
    write_config: WriteConfigOption = None,
    force: ForceOption = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every stored byte again, trusting no time stamp.")] = False,
    processes: Annotated[int, typer.Option(help="Processes that train together on this machine.", min=1)] = 1,
    jobs: JobsOption = 0,
    baseline: Annotated[
        str | None, typer.Option(help="The package released before: fail if this one is worse.", metavar="DLX")
    ] = None,
    on: BuildOnOption = None,
    exact_tools: ExactToolsOption = False,
    tensorboard: Annotated[Path | None, typer.Option(help="Write TensorBoard logs of training there.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the pipeline for each target and write its package."""
    from dlx_deploy.building import BuildOptions, find_config, usual_jobs
    from dlx_deploy.config.template import toml_value
    from dlx_deploy.stages.support.team import is_worker, run_worker

    if is_worker():
        raise typer.Exit(run_worker())
    jobs = jobs or (1 if on else usual_jobs())  # what is shared between processes cannot be a login
    if baseline is not None:
        override = f"gate.baseline={toml_value(baseline)}"
        given = dataclasses.replace(given, overrides=[*(given.overrides or []), override])
    targets = given.target or (find_config(given.config, given.overrides or ()).targets if on else ())
    with reporting(ci, "build", "build") as cases, boards_of(on or (), targets, reaching) as there:
        work = load_asked(given, Asked(deep, exact_tools, 1 if processes > 1 else jobs, write_config, force))
        build_all(work, output, BuildOptions(processes, jobs, tensorboard, as_json, say), cases)
        prove_packages(work, output, there, given.store)


@taking_given
def plan(given: Given, exact_tools: ExactToolsOption = False, as_json: JsonOption = False) -> None:
    """Say what a build would do: each stage is a hit, or runs because of something."""
    from dlx_deploy.report.plans import view_plan

    work = load_asked(given, Asked(exact_tools=exact_tools))
    for note in work.notes:
        say(note)
    print_view(view_plan(work.builds, work.store), as_json)


@taking_given
def why(
    given: Given,
    stage: Annotated[str, typer.Argument(help="The stage, as `plan` names it.")],
    exact_tools: ExactToolsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say why a stage would run, and what its key is made of."""
    from dlx_deploy.report.plans import view_step

    work = load_asked(given, Asked(exact_tools=exact_tools))
    print_view(view_step(work.builds, work.store, stage), as_json)


def status(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Say how the newest build of each target went, or how far it is."""
    from dlx_deploy.report.stores import view_status

    print_view(view_status(store), as_json)


def gc(
    config: ConfigOption = None,
    store: StoreOption = DEFAULT_STORE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what neither the newest builds nor the configuration need."""
    from dlx_deploy.building import collect, find_config

    print_view(collect(find_config(config), store, dry_run), as_json)
