"""The command that brings a package to a board."""

from __future__ import annotations

from pathlib import Path
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
from dlx_deploy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlx_deploy.devices.inventory import Board
    from dlx_deploy.devices.pushing.push import Pushable, PushOptions
    from dlx_deploy.devices.pushing.serving import Serving

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
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Bring the libraries that a board lacks: numpy, a runtime.")
    ] = False,
    wheels: Annotated[
        Path | None, typer.Option(help="With --bootstrap: the folder of wheels that alone is looked in.", metavar="DIR")
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(
            help="Have systemd serve the current release: a unit of the user, or of the system.", metavar="user|system"
        ),
    ] = None,
    serve_options: Annotated[
        str, typer.Option(help="With --service: options of serve, as in '--port 8080 --drift'.", metavar="TEXT")
    ] = "",
    no_service: Annotated[bool, typer.Option("--no-service", help="Stop that service and remove its unit.")] = False,
    at_once: Annotated[int, typer.Option(help="So many boards are worked on side by side.", min=1)] = 8,
    as_json: JsonOption = False,
) -> None:
    """Bring a package to boards, check it there, and make it current; exit 3 or 5 leaves what was current."""
    from dlx_deploy.devices.inventory import resolve_boards
    from dlx_deploy.devices.measuring import Manners
    from dlx_deploy.devices.pushing.push import PushOptions, read_pushable
    from dlx_deploy.report.pushes import PushesView

    if wheels is not None and not bootstrap:
        raise ConfigError(f"--wheels {wheels} is given without --bootstrap; give that too")
    serving = _serving(package, service, serve_options, no_service)
    chosen = resolve_boards(boards, inventory)
    given = read_pushable(package, trusting.trust())
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
        _roll_back(given, chosen, options, at_once, as_json)
        return
    from dlx_deploy.devices.pushing.bootstrap import Wheelhouse
    from dlx_deploy.devices.pushing.several import Beside, push_all
    from dlx_deploy.report.pushing import PushWatcher
    from dlx_deploy.report.screen import Screen, stderr_console
    from dlx_deploy.runtime.scratch import Scratch

    with Screen(stderr_console()) as screen, Scratch("dlx-wheelhouse") as folder:
        house = Wheelhouse(folder, wheels) if bootstrap else None
        watcher = PushWatcher(screen, len(chosen) > 1)
        results = push_all(given, chosen, options, watcher, at_once, Beside(house, serving))
    one = given.package
    finish(PushesView(one.name, one.version, one.target, results), as_json)


def _serving(package: Path, service: str | None, options: str, no_service: bool) -> Serving:
    import shlex

    from dlx_deploy.devices.pushing.serving import Serving, read_serving

    if no_service and service:
        raise ConfigError(f"--service {service} and --no-service are given; must be one of them")
    if options and not service:
        raise ConfigError(f"--serve-options {options!r} is given without --service; give that too")
    if service is None:
        return Serving("none" if no_service else "")
    try:
        words = tuple(shlex.split(options))
    except ValueError as e:
        raise ConfigError(f"--serve-options {options!r}: {e}; quote it as a shell would take it") from e
    return read_serving(package, service, words)


def _roll_back(given: Pushable, boards: Sequence[Board], options: PushOptions, at_once: int, as_json: bool) -> None:
    from dlx_deploy.devices.pushing.several import roll_back_all
    from dlx_deploy.report.pushes import view_rollbacks

    finish(view_rollbacks(roll_back_all(given, boards, options, say, at_once)), as_json)
