"""What several commands take, and how they give their answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.terminal import show, talk
from dlx_deploy.runtime.words import line

if TYPE_CHECKING:
    from dlx_deploy.runtime.views import CommandView, View

__all__ = [
    "DEFAULT_STORE",
    "AcceptHazardsOption",
    "BackendOption",
    "BoardsOption",
    "CacheOption",
    "CheckpointOption",
    "ConfigOption",
    "DataOption",
    "ExactToolsOption",
    "ForceOption",
    "JobsOption",
    "JsonOption",
    "ModelOption",
    "NoBuildOption",
    "NormalisationOption",
    "OutputOption",
    "PackageArgument",
    "PretrainedOption",
    "SetOption",
    "SizeOption",
    "StoreOption",
    "TargetOption",
    "ThreadsOption",
    "WriteConfigOption",
    "check_page",
    "finish",
    "print_view",
    "say",
    "write_page",
]

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file; ./deploy.toml if it is there.")
]
TargetOption = Annotated[
    list[str] | None, typer.Option("--target", "-t", help="Target name, alias or board.toml; repeatable.")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override one key: --set distill.epochs=5")]
ExactToolsOption = Annotated[
    bool, typer.Option("--exact-tools", help="Make again what another patch version of a library made.")
]
_JOBS_HELP = "Steps that run side by side, a process each; by default 2 where there are cores for them."
JobsOption = Annotated[
    int, typer.Option("--jobs", "-j", help=_JOBS_HELP, min=0, envvar="DLX_DEPLOY_JOBS", show_envvar=False)
]
StoreOption = Annotated[Path, typer.Option("--store", help="Where finished stages are kept.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
PackageArgument = Annotated[Path, typer.Argument(help="The .dlx file.", metavar="PACKAGE")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Where the packages go.")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="The network: a name, timm:NAME, FILE.py:FUNCTION, FILE.onnx or FILE.pt2."),
]
CheckpointOption = Annotated[Path | None, typer.Option("--checkpoint", help="Its weights.")]
PretrainedOption = Annotated[bool, typer.Option("--pretrained", help="Or those that its own library has for it.")]
DataOption = Annotated[Path | None, typer.Option("--data", help="The folder, list or table of the data.")]
SizeOption = Annotated[str | None, typer.Option("--size", help="Pixels that the network reads: 224, or 192x256 (HxW).")]
NormalisationOption = Annotated[
    str | None,
    typer.Option("--normalization", help="What it reads of them: imagenet, 0..1, -1..1, 0..255 or measured."),
]
WriteConfigOption = Annotated[
    Path | None, typer.Option("--write-config", help="Write what that means as a configuration file.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a configuration file that is there.")]
ThreadsOption = Annotated[int, typer.Option(help="0: ONNX Runtime's choice.", min=0)]

BackendOption = Annotated[
    str | None, typer.Option("--backend", help="What runs the package; the first of its own that is here by default.")
]
NoBuildOption = Annotated[bool, typer.Option("--no-build", help="Refuse if an engine would have to be built.")]
AcceptHazardsOption = Annotated[
    bool, typer.Option("--accept-hazards", help="Use a backend that is known to compute this model wrong.")
]
BoardsOption = Annotated[
    Path | None,
    typer.Option(
        "--boards",
        help="The inventory of boards; ./boards.toml if it is there.",
        envvar="DLX_DEPLOY_BOARDS",
        show_envvar=False,
    ),
]
CacheOption = Annotated[Path | None, typer.Option("--cache", help="Where engines are kept.")]

DEFAULT_STORE = Path(".dlx")
_PAGES = (".html", ".htm")


def say(text: str) -> None:
    """One line for the person at the terminal, on stderr."""
    talk(line(text))


def print_view(view: View, as_json: bool) -> None:
    """The result, on stdout."""
    from dlx_deploy.report.view import to_json

    show(to_json(view.data) if as_json else view.text)


def check_page(path: Path) -> None:
    """Refuses a file that is no page.

    Raises:
        ConfigError: its name ends otherwise.
    """
    if path.suffix.lower() not in _PAGES:
        raise ConfigError(f"--html {path}: must end in {' or '.join(_PAGES)}, so that no other file is replaced")


def write_page(path: Path, page: str) -> None:
    """Write what ``--html`` asks for.

    Raises:
        ConfigError: it cannot be written.
    """
    from dlx_deploy.runtime.files import write_atomically

    try:
        write_atomically(path, page.encode("utf-8"))
    except OSError as e:
        raise ConfigError(f"--html {path}: cannot be written ({e.strerror}); name another file") from e
    say(f"{path} written; open it in a browser")


def finish(view: CommandView, as_json: bool) -> None:
    """The result of a package's command, and then its failure.

    Raises:
        RuntimeFault: a gate did not pass.
    """
    print_view(view, as_json)
    failure = view.failure
    if failure is not None:
        raise failure
