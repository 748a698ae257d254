"""What the commands that judge take for CI: where their verdicts go beside the terminal, also when they fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx_deploy.commands.given import taking
from dlx_deploy.commands.options import finish, say
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.terminal import talk

if TYPE_CHECKING:
    from dlx_deploy.report.ci import Case
    from dlx_deploy.runtime.views import CommandView

__all__ = ["CiOutput", "finishing", "reporting", "taking_ci"]

GITHUB = "GITHUB_STEP_SUMMARY"
JunitOption = Annotated[Path | None, typer.Option(help="Write the verdicts as JUnit XML there.", metavar="FILE")]
GithubOption = Annotated[
    bool, typer.Option("--github-summary", help=f"Append them to ${GITHUB}, and annotate the run.")
]
SummaryOption = Annotated[Path | None, typer.Option(help="Append them as Markdown there.", metavar="FILE")]


@dataclass(frozen=True)
class CiOutput:
    """The options themselves, in the order of ``--help``."""

    junit: JunitOption = None
    github_summary: GithubOption = False
    summary: SummaryOption = None

    @property
    def summaries(self) -> list[Path]:
        """The files that get the table.

        Raises:
            ConfigError: GitHub's is asked for, and its runner does not name one.
        """
        named = [self.summary] if self.summary is not None else []
        if not self.github_summary:
            return named
        where = os.environ.get(GITHUB)
        if not where:
            raise ConfigError(f"--github-summary: {GITHUB} is not set, as GitHub's runner does; use --summary FILE")
        return [*named, Path(where)]


def taking_ci(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, which has a parameter that is a ``CiOutput``, as a function of its fields."""
    return taking(CiOutput, command, last=True)


@contextlib.contextmanager
def reporting(output: CiOutput, command: str, suite: str) -> Iterator[list[Case]]:
    """The list that a command adds its cases to; however it ends, they are written, and its error as one of them.

    ``suite``: what a case of the command itself is of.

    Raises:
        ConfigError: a file cannot be written; it is looked at before the work begins.
    """
    if output == CiOutput():
        yield []
        return
    from dlx_deploy.report.ci import Case

    files = [*([output.junit] if output.junit is not None else []), *output.summaries]
    _check(files)
    if output.junit is not None:
        if output.junit.suffix.lower() != ".xml":
            raise ConfigError(
                f"--junit {output.junit}: must end in .xml, so that no other file is replaced; name for instance "
                f"{output.junit}.xml"
            )
        output.junit.unlink(missing_ok=True)  # an earlier run's verdicts are not this one's
    cases: list[Case] = []
    try:
        yield cases
    except typer.Exit:
        raise
    except BaseException as e:
        state = {3: "fail", 6: "undecided"}.get(getattr(e, "exit_code", 1), "error")
        if state not in {case.state for case in cases}:
            text = str(e) or type(e).__name__
            cases.append(Case(suite=suite, name=command, state=state, text=text))  # type: ignore[arg-type]
        with contextlib.suppress(ConfigError):  # what ended the command says more
            _write(output, command, cases)
        raise
    _write(output, command, cases)


def finishing(told: list[Case], command: str, suite: str, view: CommandView, as_json: bool) -> None:
    """The result of a package's ``command``, and then its failure; ``told`` hears a case for each budget of it, or what
    was said where it had none.

    Raises:
        RuntimeFault: a gate did not pass.
    """
    from dlx_deploy.report.ci import Case, judged_cases

    told += judged_cases(suite, view.data)
    finish(view, as_json)
    if not told:
        told.append(Case(suite=suite, name=command, state="pass", text="; ".join(view.text.splitlines())))


def _check(files: list[Path]) -> None:
    for file in files:
        if file.is_dir() or not os.access(file if file.exists() else file.absolute().parent, os.W_OK):
            raise ConfigError(f"{file}: cannot be written; name a file in a folder that is there")


def _write(output: CiOutput, command: str, cases: list[Case]) -> None:
    from dlx_deploy.report.ci import github_notes, junit, summary
    from dlx_deploy.runtime.files import reason, write_atomically

    try:
        if output.junit is not None:
            write_atomically(output.junit, junit(cases))
        for file in output.summaries:
            with open(file, "a", encoding="utf-8") as f:
                f.write(summary(command, cases))
    except OSError as e:
        say(f"warning: the verdicts could not be written: {reason(e)}")
        raise ConfigError(f"the verdicts could not be written ({reason(e)}); name other files") from e
    if output.github_summary:
        for text in github_notes(cases):
            talk(text)
