"""A network and its data on the command line: ``quantize``, and what ``build`` shares with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlx_deploy.commands.given import Given, taking_given
from dlx_deploy.commands.options import (
    ForceOption,
    JobsOption,
    JsonOption,
    OutputOption,
    WriteConfigOption,
    say,
)
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.terminal import show

if TYPE_CHECKING:
    from dlx_deploy.building import BuildOptions, Work
    from dlx_deploy.oneline import Meant
    from dlx_deploy.report.ci import Case

__all__ = ["Asked", "build_all", "load_asked", "quantize"]


@dataclass(frozen=True)
class Asked:
    """What of a command line is not ``Given``. ``quantize``: nothing is trained, whatever a configuration says."""

    deep: bool = False
    exact_tools: bool = False
    jobs: int = 1
    write_config: Path | None = None
    force: bool = False
    quantize: bool = False


@taking_given
def quantize(
    given: Given,
    output: OutputOption = Path("dist"),
    write_config: WriteConfigOption = None,
    force: ForceOption = False,
    jobs: JobsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Quantize a finished network, nothing trained, and write its package: a build of --model and --data alone."""
    from dlx_deploy.building import BuildOptions, usual_jobs

    jobs = jobs or usual_jobs()
    work = load_asked(given, Asked(jobs=jobs, write_config=write_config, force=force, quantize=True))
    build_all(work, output, BuildOptions(jobs=jobs, quiet=as_json, say=say))


def load_asked(given: Given, asked: Asked) -> Work:
    """What there is to do, and what was assumed said and, where that is asked for, written.

    Raises:
        ConfigError: something that must be said is not, or as ``load_work``.
    """
    from dlx_deploy.building import Looking, load_work

    looking = Looking(asked.deep, asked.exact_tools, asked.jobs)
    path = asked.write_config
    if not (given.brings or path or asked.quantize):
        return load_work(given.config, given.target, given.overrides, given.store, looking)
    from dlx_deploy.oneline import check_normalised, configured

    if path is not None and path.exists() and not asked.force:
        raise ConfigError(f"--write-config {path}: is there already; name another file, or replace it with --force")
    meant = configured(given.config, given.brought, given.overrides or (), given.target or (), asked.quantize)
    for text in meant.lines:
        say(text)
    work = load_work(meant.config, given.target, None, given.store, looking)
    try:
        if meant.alone:
            check_normalised(work.config, given.brought)
        if path is not None:
            _write(meant, path)
    except BaseException:
        if work.workers is not None:
            work.workers.stop()
        raise
    return work


def _write(meant: Meant, path: Path) -> None:
    from dlx_deploy.oneline import written

    text = written(meant, path)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"--write-config {path}: cannot be written ({e.strerror}); name another file") from e
    say(f"{path} written; dlx-deploy build -c {path} builds the same")


def build_all(work: Work, output: Path, options: BuildOptions, cases: list[Case] | None = None) -> None:
    """Build what ``work`` says, each target's view on stdout; its budgets are added to ``cases``.

    Raises:
        GateStopped: a gate failed, or is undecided.
    """
    from dlx_deploy.building import build_packages
    from dlx_deploy.report.ci import gate_cases
    from dlx_deploy.report.view import to_json

    for note in work.notes:
        say(note)
    views, failures = [], []
    for built in build_packages(work, output, options):
        views.append(built.view.data)
        failures += [built.failure] if built.failure else []
        if cases is not None:
            cases += gate_cases(built.view.target, built.view.gates, built.view.seconds)
        if not options.quiet:
            show(built.view.text)
    if options.quiet:
        show(to_json(views))
    if failures:
        raise min(failures, key=lambda failure: failure.exit_code)  # a failed gate says more than an undecided one
