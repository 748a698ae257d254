"""The command that says why a package is less accurate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlx_deploy.commands.options import DEFAULT_STORE, JsonOption, PackageArgument, StoreOption, print_view, say

__all__ = ["debug"]


def debug(
    package: PackageArgument,
    data: Annotated[
        str | None, typer.Option("--data", help="As verify takes it; by default the build's test split in the store.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="The ONNX in floating point; by default what was quantized, in the store.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    layers: Annotated[int, typer.Option(help="Of the noisiest layers so many are restored, one by one.", min=0)] = 8,
    samples: Annotated[int, typer.Option(help="At most so many, evenly over all; 0: all.", min=0)] = 2000,
    metric: Annotated[
        str, typer.Option(help="Where the function is that the gate judged by, if it was yours: FILE.py:FUNCTION.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for what flipped as a page, confusions as a picture, all as JSON.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a package is less accurate than its network in floating point: layer by layer, and what to do."""
    from dlx_deploy.debugging.debug import Debugged, debug_package
    from dlx_deploy.report.screen import showing

    with showing("debug") as progress:
        view = debug_package(Debugged(package, store, data or "", reference, layers, samples, metric, out), progress)
    if out is not None:
        say(f"{out} written: flips.html shows what flipped")
    print_view(view, as_json)
