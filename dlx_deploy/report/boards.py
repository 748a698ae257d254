"""Boards as people look at them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dlx_deploy.devices.inventory import Board, Inventory, resolved
from dlx_deploy.report.table import format_table

__all__ = ["BoardsView", "view_boards"]


class BoardsView(msgspec.Struct, frozen=True):
    """The boards that were asked for; ``origin``: the file that names them."""

    origin: str
    boards: tuple[Board, ...]

    @property
    def data(self) -> BoardsView:
        """All of it."""
        return self

    @property
    def text(self) -> str:
        """A table."""
        rows = [
            [b.name, b.address, b.target or "-", b.power_mode or "-", ", ".join(b.groups) or "-", b.note]
            for b in self.boards
        ]
        return format_table(["board", "address", "target", "power mode", "groups", "note"], rows)


def view_boards(names: Sequence[str], known: Inventory) -> BoardsView:
    """The boards that ``names`` mean (none: all that are ``known``).

    Raises:
        ConfigError: a name is unknown.
    """
    return BoardsView(known.origin, resolved(names, known) if names else tuple(known.boards.values()))
