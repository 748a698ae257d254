"""A package signed by its maker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlx_deploy.commands.options import JsonOption, PackageArgument, print_view

__all__ = ["sign"]


def sign(
    package: PackageArgument,
    key: Annotated[Path, typer.Option(help="Your private key: PEM, elliptic curve P-256, P-384 or P-521.")],
    certificate: Annotated[
        Path | None, typer.Option(help="The key's certificate (PEM), for who trusts its root instead of the key.")
    ] = None,
    chain: Annotated[list[Path] | None, typer.Option(help="The certificates up to its root (PEM); repeatable.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the signature goes; PACKAGE.sig by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a package in the format of OpenSSF's model-signing, in a file beside it.

    The password of an encrypted key is read from DLX_DEPLOY_KEY_PASSWORD.
    """
    from dlx_deploy.signing import SigningKey, sign_package

    signer = SigningKey(key, certificate, tuple(chain or ()))
    print_view(sign_package(package, signer, output), as_json)
