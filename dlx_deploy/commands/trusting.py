"""What the commands on packages take that says whose signature a package must have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx_deploy.commands.given import taking

if TYPE_CHECKING:
    from dlx_deploy.runtime.package.trust import Trust

__all__ = ["Trusting", "taking_trust"]

RequireOption = Annotated[
    bool, typer.Option("--require-signature", help="Refuse a package that no trusted key signed.")
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--public-key", help="The maker's (PEM), whose signature is then required.", metavar="PEM"),
]
CertificatesOption = Annotated[
    Path | None, typer.Option(help="Or the root of the certificate that it was signed by (PEM).", metavar="PEM")
]
SignatureOption = Annotated[Path | None, typer.Option(help="Where it is; PACKAGE.sig by default.", metavar="FILE")]


@dataclass(frozen=True)
class Trusting:
    """The options themselves, in the order of ``--help``."""

    require_signature: RequireOption = False
    public_key: KeyOption = None
    certificates: CertificatesOption = None
    signature: SignatureOption = None

    def trust(self, require: bool = False) -> Trust | None:
        """What they trust, or the machine does; ``None``: no signature is asked for.

        Raises:
            InputError: one is, and nothing is trusted.
        """
        from dlx_deploy.runtime.package.trust import Trust, required_trust

        asked = Trust(self.public_key, self.certificates, self.signature)
        return required_trust(asked, require or self.require_signature)

    def flags(self) -> list[str]:
        """The same, as a package's own command line takes them."""
        named = {"public-key": self.public_key, "certificates": self.certificates, "signature": self.signature}
        given = [f"--{name}={value}" for name, value in named.items() if value is not None]
        return [*["--require-signature"] * self.require_signature, *given]


def taking_trust(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, which has a parameter that is a ``Trusting``, as a function of its fields."""
    return taking(Trusting, command, last=True)
