"""The command that brings a package to a board."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dlx_deploy.commands.options import (
    AcceptHazardsOption,
    BoardsOption,
    JsonOption,
    PackageArgument,
    finish,
    say,
)
from dlx_deploy.commands.trusting import Trusting, taking_trust

if TYPE_CHECKING:
    from dlx_deploy.devices.inventory import Board
    from dlx_deploy.devices.pushing.push import Pushable, Pushed, PushOptions

__all__ = ["push"]


@taking_trust
def push(
    trusting: Trusting,
    package: PackageArgument,
    boards: Annotated[
        list[str],
        typer.Argument(help="ssh://[user@]board[:port][/path], or names of the inventory.", metavar="BOARD…"),
    ],
    inventory: BoardsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Instead, go back to the release before the current one.")
    ] = False,
    keep: Annotated[int, typer.Option(help="So many releases stay on the board.", min=1)] = 3,
    skip_bench: Annotated[bool, typer.Option("--skip-bench", help="Leave budgets of the board unjudged.")] = False,
    wait: Annotated[float, typer.Option(help="Wait so many seconds for others to end.", min=0)] = 0.0,
    steal: Annotated[bool, typer.Option("--steal", help="Take the board from whoever pushes or measures.")] = False,
    other_board: Annotated[
        bool, typer.Option("--other-board", help="Push although the package is for another target.")
    ] = False,
    python: Annotated[
        str | None, typer.Option(help="The Python that runs packages there: python3.10, or its path.")
    ] = None,
    accept_hazards: AcceptHazardsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a package to boards, check it there, and make it current; exit 3 or 5 leaves what was current."""
    from dlx_deploy.devices.inventory import resolve_boards
    from dlx_deploy.devices.measuring import Manners
    from dlx_deploy.devices.pushing.push import PushOptions, read_pushable
    from dlx_deploy.report.pushes import PushesView

    chosen = resolve_boards(boards, inventory)
    passed_on = bool(trusting.flags())
    given = read_pushable(package, trusting.trust(), passed_on)
    options = PushOptions(
        keep=keep,
        bench=not skip_bench,
        dry_run=dry_run,
        other_board=other_board,
        accept_hazards=accept_hazards,
        python=python,
        manners=Manners(wait, steal),
    )
    if rollback:
        for board in chosen:
            _roll_back(given, board, options, as_json)
        return
    results = tuple(_pushed(given, board, options) for board in chosen)
    one = given.package
    finish(PushesView(one.name, one.version, one.target, results), as_json)


def _pushed(given: Pushable, board: Board, options: PushOptions) -> Pushed:
    import msgspec

    from dlx_deploy.devices.pushing.push import push, unreached
    from dlx_deploy.devices.ssh.address import parse_address
    from dlx_deploy.devices.ssh.openssh import SshConnection
    from dlx_deploy.errors import BoardError
    from dlx_deploy.runtime.telling import telling

    address = parse_address(board.address)
    manners = msgspec.structs.replace(options.manners, power_mode=board.power_mode)
    options = msgspec.structs.replace(options, path=address.path, target=board.target, manners=manners)
    try:
        with SshConnection(address) as connection, telling(say, f"{given.path.name} to {board.name}") as tell:
            return push(given, connection, options, say, lambda done, total, text="": tell(done, total, text))
    except BoardError as e:
        return unreached(board.name, given, options, e)


def _roll_back(given: Pushable, board: Board, options: PushOptions, as_json: bool) -> None:
    from dlx_deploy.devices.pushing.push import default_path, roll_back
    from dlx_deploy.devices.ssh.address import parse_address
    from dlx_deploy.devices.ssh.openssh import SshConnection
    from dlx_deploy.report.pushes import RollbackView

    address = parse_address(board.address)
    path = address.path or default_path(given.package)
    with SshConnection(address) as connection:
        told = roll_back(connection, path, options.manners, say)
    finish(RollbackView(board.name, path, told["from"], told["to"]), as_json)
