"""What a command has to say: one typed value, and its renderings."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

__all__ = ["View", "to_json"]


class View(Protocol):
    """A value that renders itself, as data for programs and as text for people; a package's ``Outcome`` is one too."""

    @property
    def data(self) -> Any:
        """What ``--json`` prints: plain values, or what msgspec makes them of."""
        ...

    @property
    def text(self) -> str:
        """What people read, without a newline at its end."""
        ...


def to_json(value: Any) -> str:
    """``value`` as JSON for people who read it as well: sorted and indented."""
    return msgspec.json.format(msgspec.json.encode(value, order="sorted", enc_hook=str), indent=1).decode()
