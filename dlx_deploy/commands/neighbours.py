"""A package for other servers of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlx_deploy.commands.options import JsonOption, PackageArgument, print_view
from dlx_deploy.commands.trusting import Trusting, taking_trust

__all__ = ["export_bundle"]


@taking_trust
def export_bundle(
    trusting: Trusting,
    package: PackageArgument,
    kind: Annotated[str, typer.Option("--format", help="triton or deepstream.", metavar="FORMAT")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Triton's model repository, or the folder of the configuration.")
    ],
    name: Annotated[str, typer.Option("--name", help="Of the model there; the package's by default.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Write a package as a model of Triton's repository, or as a configuration of DeepStream's nvinfer, and say what is
    otherwise there.
    """
    from dlx_deploy.bundles.bundle import export_bundle

    print_view(export_bundle(package, kind, out, name, trusting.trust()), as_json)
