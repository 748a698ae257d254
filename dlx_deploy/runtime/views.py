"""What a command has to say, apart from how it is printed: as a line of text for people, or as JSON for programs."""

from __future__ import annotations

from typing import Iterable, Optional, Protocol

from .errors import RuntimeFault
from .records import record
from .untyped import JsonTable
from .words import line

__all__ = ["CommandView", "Outcome", "View", "lines_of"]


class View(Protocol):
    """A value that renders itself, as data for programs and as text for people."""

    @property
    def data(self) -> object:
        """What ``--json`` prints: plain values, or what JSON is made of."""

    @property
    def text(self) -> str:
        """What people read, without a newline at its end."""


class CommandView(View, Protocol):
    """What a package's command says."""

    @property
    def data(self) -> JsonTable:
        """A table of JSON-ready values."""

    @property
    def failure(self) -> Optional[RuntimeFault]:
        """The error that a gate which did not pass amounts to, after the rest was said; or ``None``."""


@record
class Outcome:
    """A view that was rendered elsewhere, on a board for instance: nothing but what it shows."""

    data: JsonTable
    text: str
    failure: Optional[RuntimeFault] = None


def lines_of(lines: Iterable[str]) -> str:
    """One text of ``lines``, each of which stays one: the names in them are other people's."""
    return "\n".join(map(line, lines))
