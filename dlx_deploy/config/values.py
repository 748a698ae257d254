"""What the tables of ``deploy.toml`` have in common: their base, and the ranges of values."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = [
    "AtLeastOne",
    "Count",
    "Fraction",
    "Identifier",
    "Level",
    "Positive",
    "Section",
]

Fraction = Annotated[float, Meta(ge=0.0, lt=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Count = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Level = Annotated[int, Meta(ge=0, le=255)]
Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=80)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of ``deploy.toml``."""
