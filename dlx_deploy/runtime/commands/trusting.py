"""The options of a command line that say whose signature a package must have, and what is said of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Optional, Sequence, Tuple

from ..errors import InputError
from ..files import PathLike
from ..package.contents import Package
from ..package.trust import KEY_VARIABLE, Trust, required_trust

if TYPE_CHECKING:
    import argparse

    from .plain import Arguments

__all__ = ["add_trust_options", "asked_trust", "signature_rows"]


def add_trust_options(parser: argparse.ArgumentParser) -> None:
    """Gives ``parser`` the options."""
    parser.add_argument(
        "--require-signature",
        action="store_true",
        help=f"refuse a package that no trusted key signed; by whom: the next two, or {KEY_VARIABLE}",
    )
    parser.add_argument("--public-key", metavar="PEM", help="the maker's public key, which is then required")
    parser.add_argument("--certificates", metavar="PEM", help="or the root of the certificate that it was signed by")
    parser.add_argument("--signature", metavar="FILE", help="where the signature is (default: PACKAGE.sig)")


def asked_trust(arguments: Arguments, inside: bool) -> Optional[Trust]:
    """What the command line trusts; ``inside``: it is the package's own, whose code runs already.

    Raises:
        InputError: a signature is asked for and nothing is trusted, or a package is to vouch for itself.
    """
    if arguments.command is None:  # no command, so no options of one
        return None
    asked = Trust(arguments.public_key, arguments.certificates, arguments.signature)
    if inside and (arguments.require_signature or asked != Trust()):
        raise InputError(
            "python PACKAGE runs the package's own code, so its word for its signature is worth nothing; use code that "
            "you trust: dlx-deploy, or python -m dlx_deploy.runtime PACKAGE"
        )
    return required_trust(asked, arguments.require_signature)


def signature_rows(package: Package, path: Optional[PathLike]) -> Sequence[Tuple[str, str]]:
    """Who signed the package, or that a signature lies beside ``path`` which nobody has asked about."""
    from ..package.bundle import SUFFIX

    if package.signed is not None:
        return [("signed", f"by {package.signed.by} ({package.signed.signature})")]
    beside = None if path is None else f"{os.fspath(path)}{SUFFIX}"
    if beside is None or not os.path.exists(beside):
        return ()
    return [("signed", f"unknown: {beside} is here and was not verified; --public-key FILE does it")]
