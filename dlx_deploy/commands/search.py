"""The command that searches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlx_deploy.commands.options import (
    DEFAULT_STORE,
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    TargetOption,
    print_view,
    say,
)

__all__ = ["search"]


def search(
    config: ConfigOption = None,
    target: TargetOption = None,
    overrides: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    trials: Annotated[int, typer.Option(help="So many in all, those of before included.", min=1)] = 40,
    minutes: Annotated[float, typer.Option(help="No trial is begun after that.")] = 60.0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the chosen deploy.toml and the plot go.")
    ] = Path("search"),
    as_json: JsonOption = False,
) -> None:
    """Try many variants of a configuration, judged on the validation split, and write the best as a deploy.toml."""
    from dlx_deploy.report.live import QuietWatcher, RowsWatcher
    from dlx_deploy.report.screen import Screen, stderr_console
    from dlx_deploy.search.base import Search
    from dlx_deploy.search.searching import search as run

    with Screen(stderr_console()) as screen:
        watch = QuietWatcher(say) if as_json else RowsWatcher(screen)
        said = config, tuple(target or ()), tuple(overrides or ()), store
        view = run(Search(*said, trials, minutes, output, watch, screen.say))
    print_view(view, as_json)
    if view.failure is not None:
        raise view.failure
