"""The command that lists boards."""

from __future__ import annotations

from typing import Annotated

import typer

from dlx_deploy.commands.options import BoardsOption, JsonOption, finish, print_view
from dlx_deploy.errors import ConfigError

__all__ = ["boards"]


def boards(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Boards, groups or addresses (ssh://…); all by default.", metavar="BOARD…"),
    ] = None,
    inventory: BoardsOption = None,
    facts: Annotated[
        bool, typer.Option("--facts", help="Ask each what it is and has; exit 4 where one does not answer.")
    ] = False,
    example: Annotated[bool, typer.Option("--example", help="Print a commented boards.toml.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the boards of the inventory; with --facts, what they are at this moment."""
    from dlx_deploy.devices.inventory import DEFAULT, example_inventory, load_inventory
    from dlx_deploy.report.boards import view_boards
    from dlx_deploy.runtime.terminal import show

    if example:
        show(example_inventory().rstrip("\n"))
        return
    known = load_inventory(inventory)
    if not known.origin and not names:
        raise ConfigError(f"there is no {DEFAULT} here; write one with: dlx-deploy boards --example > {DEFAULT}")
    view = view_boards(names or [], known)
    if facts:
        from dlx_deploy.devices.looking import look_at
        from dlx_deploy.report.boards import SeenView

        finish(SeenView(look_at(view.boards)), as_json)
        return
    print_view(view, as_json)
