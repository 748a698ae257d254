"""Commands of the machine that builds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlx_deploy.commands.bringing import Asked, build_all, load_asked
from dlx_deploy.commands.options import (
    DEFAULT_STORE,
    CheckpointOption,
    ConfigOption,
    DataOption,
    ExactToolsOption,
    ForceOption,
    JobsOption,
    JsonOption,
    ModelOption,
    NormalisationOption,
    OutputOption,
    PretrainedOption,
    SetOption,
    SizeOption,
    StoreOption,
    TargetOption,
    WriteConfigOption,
    print_view,
    say,
)

__all__ = ["build", "gc", "plan", "status", "why"]


def build(
    config: ConfigOption = None,
    target: TargetOption = None,
    overrides: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    output: OutputOption = Path("dist"),
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    pretrained: PretrainedOption = False,
    data: DataOption = None,
    size: SizeOption = None,
    normalisation: NormalisationOption = None,
    write_config: WriteConfigOption = None,
    force: ForceOption = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every stored byte again, trusting no time stamp.")] = False,
    processes: Annotated[int, typer.Option(help="Processes that train together on this machine.", min=1)] = 1,
    jobs: JobsOption = 0,
    exact_tools: ExactToolsOption = False,
    tensorboard: Annotated[Path | None, typer.Option(help="Write TensorBoard logs of training there.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the pipeline for each target and write its package."""
    from dlx_deploy.building import BuildOptions, load_work, usual_jobs
    from dlx_deploy.stages.support.team import is_worker, run_worker

    if is_worker():
        raise typer.Exit(run_worker())
    options = BuildOptions(processes, jobs or usual_jobs(), tensorboard, as_json, say)
    if not any((model, checkpoint, pretrained, data, size, normalisation, write_config)):
        build_all(load_work(config, target, overrides, store, deep, exact_tools), output, options)
        return
    from dlx_deploy.oneline import Brought

    brought = Brought(model or "", checkpoint, pretrained, data, size or "", normalisation or "")
    asked = Asked(config, target, overrides, store, deep, exact_tools, write_config, force)
    build_all(load_asked(asked, brought), output, options)


def plan(
    config: ConfigOption = None,
    target: TargetOption = None,
    overrides: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    exact_tools: ExactToolsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a build would do: each stage is a hit, or runs because of something."""
    from dlx_deploy.building import load_work
    from dlx_deploy.report.plans import view_plan

    work = load_work(config, target, overrides, store, exact_tools=exact_tools)
    for note in work.notes:
        say(note)
    print_view(view_plan(work.builds, work.store), as_json)


def why(
    stage: Annotated[str, typer.Argument(help="The stage, as `plan` names it.")],
    config: ConfigOption = None,
    target: TargetOption = None,
    overrides: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    exact_tools: ExactToolsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say why a stage would run, and what its key is made of."""
    from dlx_deploy.building import load_work
    from dlx_deploy.report.plans import view_step

    work = load_work(config, target, overrides, store, exact_tools=exact_tools)
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
