"""The command that writes a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlx_deploy.commands.options import JsonOption, print_view, say
from dlx_deploy.errors import ConfigError

__all__ = ["init"]


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("deploy.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Your data: sizes, networks and epochs are chosen for them.")
    ] = None,
    task: Annotated[str, typer.Option("--task", help="With --data: what is learned, if it must be that.")] = "",
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="With --data: the targets of the configuration.")
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", help="With --data: how long training may take here.")] = 30.0,
    model: Annotated[str, typer.Option("--model", help="With --data: the teacher, as teacher.model has it.")] = "",
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="With --data: trained weights of the teacher.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a commented deploy.toml that builds as it stands; with --data, one that fits them and this machine."""
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already; name another file, or replace it with --force")
    asked = {"--task": task, "--target": target, "--model": model, "--checkpoint": checkpoint}
    if data is None:
        if alone := [name for name, value in asked.items() if value]:
            raise ConfigError(f"{alone[0]} is given without --data; give the folder of your data too")
        from dlx_deploy.config.template import render

        _write(path, render())
        say(f"{path} written; build with: dlx-deploy build -c {path}")
        return
    if not 0 < minutes < float("inf"):
        raise ConfigError(f"--minutes is {minutes}; must be more than 0")
    from dlx_deploy.config.template import render
    from dlx_deploy.report.screen import showing
    from dlx_deploy.report.starting import StartView
    from dlx_deploy.start.choosing import start
    from dlx_deploy.start.wish import Wish

    with showing("init") as progress:
        wish = Wish(data, path, "", task, tuple(target or ()), minutes, model, checkpoint, say, progress)
        chosen = start(wish)
    _write(path, render(chosen.values, chosen.reasons))
    print_view(StartView(str(path), chosen), as_json)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"{path}: cannot be written ({e.strerror}); name another file") from e
