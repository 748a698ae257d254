"""Commands on targets."""

from __future__ import annotations

from typing import Annotated

import typer

from dlx_deploy.commands.options import JsonOption, print_view

__all__ = ["targets_list", "targets_show"]


def targets_list(as_json: JsonOption = False) -> None:
    """List every target and alias."""
    from dlx_deploy.report.targets import view_targets

    print_view(view_targets(), as_json)


def targets_show(
    target: Annotated[str, typer.Argument(help="Name, alias or board.toml.")], as_json: JsonOption = False
) -> None:
    """Show one target's profile."""
    from dlx_deploy.report.targets import view_target

    print_view(view_target(target), as_json)
