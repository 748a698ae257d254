"""The report of a build, for people who decide whether it ships."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlx_deploy.commands.options import DEFAULT_STORE, JsonOption, StoreOption, check_page, print_view, write_page

__all__ = ["report"]


def report(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Targets or .dlx files; by default the newest build of each.", metavar="[TARGET|PACKAGE]"),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    html: Annotated[Path | None, typer.Option("--html", help="Write it as a page there.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a build came to: verdicts, what each stage gave, where it comes from; of several, side by side."""
    from dlx_deploy.report.page.asked import view_reports

    if html is not None:
        check_page(html)
    view = view_reports(what or [], store)
    if html is not None:
        write_page(html, view.html)
    print_view(view, as_json)
