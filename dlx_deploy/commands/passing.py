"""Options of a command on a package, as the package's own command line takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlx_deploy.commands.trusting import Trusting

__all__ = ["given_flags", "trust_flags"]


def trust_flags(trusting: Trusting, on: str | None) -> list[str]:
    """Whose signature the package must have, for where it is run: what goes to a board is checked here."""
    return trusting.flags() if on is None else []


def given_flags(options: Mapping[str, object]) -> list[str]:
    """The options that have a value, as a package's own command line takes them."""
    return [f"--{name}={value}" for name, value in options.items() if value is not None]
