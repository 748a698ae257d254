"""Commands on targets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlx_deploy.commands.options import JsonOption, TargetOption, print_view

__all__ = ["hazards", "targets_list", "targets_show"]


def hazards(
    file: Annotated[Path | None, typer.Argument(help="An ONNX model or a package; without one, the table.")] = None,
    target: TargetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what runtimes are known to compute wrong, or what a graph would meet on each target."""
    from dlx_deploy.report.hazards import view_hazards, view_met

    print_view(view_met(file, target or []) if file else view_hazards(), as_json)


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
